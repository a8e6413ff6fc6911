"""What lossary.keras promises, on the backend of KERAS_BACKEND; test_keras.py runs it on each."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import lossary.keras
from lossary import Loss, contracts
from lossary.contract import REGISTRY
from lossary.inputs import arrivals
from lossary.testing.everyday import plain_batch
from lossary.testing.settings import parameter_sets

LEARNED = [c for c in contracts() if c.learned]
TARGETED = [
    c for c in contracts() if c.predictions and c.unit and c.unit.name != "tensor" and not c.learned
]
every_loss = pytest.mark.parametrize("contract", TARGETED, ids=lambda contract: contract.name)


@pytest.fixture(autouse=True)
def the_same_weights_each_time():
    keras.utils.set_random_seed(0)


def numbers(x):
    return ops.convert_to_numpy(x)


def batch_of(contract):
    """An everyday batch of 6 rows: JAX compiles each operation anew for other sizes."""
    parameters = parameter_sets(contract)[0]
    batch = {
        name: value.astype("float32") if value.dtype.kind == "f" else value
        for name, value in plain_batch(contract, parameters).items()
    }
    needed = {name: parameters[name] for name, item in contract.parameters.items() if item.required}
    return batch, needed


def made(contract, **options):
    """An object whose predictions arrive as the definition takes them."""
    kind = lossary.keras._CLASSES[contract.name]
    if "predictions" in kind.__signature__.parameters:
        first = arrivals(contract)[0]
        options["predictions"] = first
    if "smooth" in contract.parameters:
        options.setdefault("smooth", contract.parameters["smooth"].default)
    return kind(**options)


def pair(contract, batch):
    batch = {
        name: np.moveaxis(value, 1, -1) if contract.inputs[name].layout == "image" else value
        for name, value in batch.items()
    }
    predictions = [ops.convert_to_tensor(batch[name]) for name in contract.predictions]
    y_pred = predictions[0] if len(predictions) == 1 else predictions
    y_true = batch[contract.target_name] if contract.target_name else np.zeros((6, 1), "float32")
    return y_true, y_pred


@every_loss
def test_equals_loss(contract):
    """The value per sample is that of Loss, averaged over the last axis where it is per element."""
    batch, needed = batch_of(contract)
    y_true, y_pred = pair(contract, batch)
    options = dict(needed, reduction="none")
    axis = contract.parameters.get("axis")
    if contract.unit.name == "region" and axis and axis.default is None:
        options["axis"] = tuple(range(1, batch[contract.predictions[0]].ndim))
    if len(contract.inputs) > len(contract.predictions) + bool(contract.target_name):
        lengths = [name for name, space in contract.inputs.items() if space.name == "length"]
        places = np.arange(y_true.shape[1])  # Keras takes lengths from padding
        y_true = np.where(places < batch[lengths[1]][:, None], y_true, 0)
        batch[lengths[0]] = np.full(len(y_true), y_pred.shape[1])
    values = numbers(made(contract, **options)(y_true, y_pred))
    tensors = {name: ops.convert_to_tensor(value) for name, value in batch.items()}
    expected = numbers(Loss(contract, reduction="none", **needed)(**tensors))
    if contract.unit.name == "element" and expected.ndim:
        expected = expected.mean(axis=-1)
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=1e-7)


@every_loss
def test_configs_round_trip(contract):
    _, needed = batch_of(contract)
    loss = made(contract, name="mine", reduction="sum", **needed)
    config = json.loads(json.dumps(loss.get_config()))
    again = type(loss).from_config(config)
    assert again.get_config() == loss.get_config()
    assert again.loss == loss.loss
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is type(loss)
    assert restored.loss == loss.loss


def test_every_name_is_a_class_and_a_function():
    for key, (contract, alias) in REGISTRY.items():
        if contract.learned:
            assert issubclass(lossary.keras.get(alias.name), keras.layers.Layer)
        elif contract.predictions:
            assert lossary.keras.get(alias.name.lower()).__name__ == key
            assert getattr(lossary.keras, lossary.keras._CLASSES[key].__name__).key == key


def test_every_loss_of_keras_is_here():
    theirs = [
        name
        for name, kind in vars(keras.losses).items()
        if isinstance(kind, type) and name != "Loss"
    ]
    assert len(theirs) >= 22
    for name in theirs:
        assert issubclass(getattr(lossary.keras, name), keras.losses.Loss), name


@pytest.mark.parametrize("contract", LEARNED, ids=lambda contract: contract.name)
def test_learned_weights_are_a_layers(contract, tmp_path):
    """The loss falls, its weights train, and a saved model goes on."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 60)
    x = (np.eye(3)[labels] + 0.3 * generator.normal(size=(60, 3))).astype("float32")
    inputs, label = keras.Input((3,)), keras.Input((), dtype="int32")
    embedding = layers.Dense(2)(inputs)
    options = {"scale": 8.0} if "scale" in contract.parameters else {}
    layer = lossary.keras.get(contract.name)(num_classes=3, **options)
    model = keras.Model([inputs, label], layer(embedding, label))
    model.compile(keras.optimizers.Adam(0.02))
    before = [numbers(weight) for weight in layer.trainable_weights]
    assert [weight.shape for weight in before] == [(3, 2)]
    history = model.fit([x, labels], epochs=6, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]
    assert not np.allclose(numbers(layer.trainable_weights[0]), before[0])
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    one, other = (each.evaluate([x, labels], batch_size=60, verbose=0) for each in (model, again))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    (learned,), first = contract.learned, contract.predictions[0]
    arrays = {
        first: numbers(keras.Model(inputs, embedding)(x)),
        "target": labels,
        learned: numbers(layer.trainable_weights[0]),
    }
    expected = Loss(contract, **options)(**arrays)
    np.testing.assert_allclose(one, float(expected), rtol=1e-5)


@pytest.mark.parametrize("name", ["Circle", "SupervisedContrastive", "CTC"])
def test_losses_of_labels_train_in_batches_of_unknown_size(name):
    x = np.random.default_rng(0).normal(size=(37, 5, 4)).astype("float32")
    inputs = keras.Input((5, 4))
    outputs, y_true = layers.Dense(6)(inputs), np.tile([[1, 2, 0]], (37, 1))
    if name != "CTC":
        outputs, y_true = layers.Dense(3)(layers.Flatten()(inputs)), np.arange(37) % 3
        x[:, 0, :3] += 4 * np.eye(3)[y_true]
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.02), getattr(lossary.keras, name)())
    history = model.fit(x, y_true, batch_size=16, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_masked_steps_have_no_part():
    """A mask over time shortens the sequence."""
    logits = np.random.default_rng(0).normal(size=(6, 4, 3)).astype("float32")
    y_true, steps = np.tile([1, 2], (6, 1)), np.full((6, 4), True)
    steps[0, 3] = False
    values = numbers(lossary.keras.CTC(reduction="none")(y_true, masked(logits, steps)))
    expected = Loss("ctc", reduction="none")(logits, y_true, steps.sum(axis=1), np.full(6, 2))
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    short = Loss("ctc", reduction="none")(logits[:1, :3], y_true[:1], np.array([3]), np.array([2]))
    np.testing.assert_allclose(values[0], short[0], rtol=1e-6)


REDUCED = {"sum_over_batch_size": 5 / 2, "mean": 5 / 2, "sum": 5.0, "none": [2.0, 3.0]}


@pytest.mark.parametrize("reduction", REDUCED)
def test_reductions(reduction):
    loss = lossary.keras.MeanAbsoluteError(reduction=reduction)
    value = loss(np.zeros((2, 2)), np.array([[1.0, 3.0], [2.0, 4.0]]))
    np.testing.assert_allclose(numbers(value), REDUCED[reduction])


def test_weights():
    y_true, y_pred = np.zeros((2, 2)), np.array([[1.0, 3.0], [2.0, 4.0]])
    weight = np.array([1.0, 3.0])
    mean = lossary.keras.MeanAbsoluteError()(y_true, y_pred, sample_weight=weight)
    assert float(mean) == pytest.approx(11 / 2)
    loss = lossary.keras.MeanAbsoluteError(reduction="mean_with_sample_weight")
    assert float(loss(y_true, y_pred, sample_weight=weight)) == pytest.approx(11 / 4)


def masked(x, mask):
    tensor = ops.convert_to_tensor(x, dtype="float32")
    keras.src.backend.set_keras_mask(tensor, ops.convert_to_tensor(mask))
    return tensor


def test_masked_is_absent():
    """A NaN under the mask is not seen; the mean is over what remains."""
    y_pred = masked([[[1.0], [np.nan]], [[3.0], [5.0]]], [[True, False], [True, True]])
    value = lossary.keras.MeanSquaredError()(np.zeros((2, 2, 1)), y_pred)
    assert float(value) == pytest.approx((1 + 9 + 25) / 3)


def test_masking_layer_in_fit():
    model = keras.Sequential(
        [layers.Masking(mask_value=-1.0), layers.LSTM(3, return_sequences=True), layers.Dense(1)]
    )
    inputs = np.random.default_rng(0).normal(size=(6, 4, 2)).astype("float32")
    inputs[:, 2:] = -1.0
    targets = np.zeros((6, 4, 1), "float32")
    targets[:, 2:] = np.nan  # unknown where masked
    for loss in (lossary.keras.MeanSquaredError(), lossary.keras.Huber()):
        model.compile("sgd", loss)
        history = model.fit(inputs, targets, epochs=2, verbose=0)
        assert np.isfinite(history.history["loss"]).all()


def test_ignored_classes_leave_the_mean():
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    y_true = np.array([0, -1, 2, -1, 1, 0])
    loss = lossary.keras.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    assert float(loss(y_true, logits)) == pytest.approx(float(theirs(y_true, logits)), rel=1e-5)
    values = lossary.keras.sparse_categorical_crossentropy(
        y_true, logits, from_logits=True, ignore_class=-1
    )
    assert list(numbers(values) == 0) == [False, True, False, True, False, False]


@pytest.mark.parametrize(
    "name", ["binary_crossentropy", "binary_focal", "categorical_crossentropy"]
)
def test_label_smoothing(name):
    """Moved evenly to all classes, also where the definition knows nothing of smoothing."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(6, 3)).astype("float32")
    hard = np.eye(3, dtype="float32")[generator.integers(0, 3, 6)]
    function = lossary.keras.get(name)
    soft = hard * 0.8 + (0.2 / 3 if name.startswith("categorical") else 0.1)
    one = function(hard, logits, from_logits=True, label_smoothing=0.2)
    other = function(soft, logits, from_logits=True)
    np.testing.assert_allclose(numbers(one), numbers(other), rtol=2e-6)


def test_probabilities_and_logits_agree():
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    y_true = np.array([0, 1, 2, 1, 0, 2])
    from_logits = lossary.keras.CrossEntropy(from_logits=True)(y_true, logits)
    from_softmax = lossary.keras.CrossEntropy()(y_true, ops.softmax(ops.convert_to_tensor(logits)))
    assert float(from_logits) == pytest.approx(float(from_softmax), rel=1e-6)


def test_large_class_numbers_survive_half_precision():
    logits = np.zeros((2, 300), "float32")
    logits[0, 257] = logits[1, 299] = 8.0
    loss = lossary.keras.SparseCategoricalCrossentropy(from_logits=True, dtype="bfloat16")
    value = loss(np.array([257, 299]), logits)
    assert keras.backend.standardize_dtype(value.dtype) == "bfloat16"
    assert float(value) < 0.2  # 257 rounds to 256 in bfloat16


def tiny_model(units=2, activation=None, outputs=1):
    inputs = keras.Input((3,))
    heads = [
        layers.Dense(units, activation=activation, name=f"head{i}")(inputs) for i in range(outputs)
    ]
    return keras.Model(inputs, heads if outputs > 1 else heads[0])


X = np.random.default_rng(0).normal(size=(37, 3)).astype("float32")
CLASSES = (X[:, 0] > 0).astype("int64")


@pytest.mark.parametrize("form", ["object", "function", "name"])
def test_saves_and_loads_without_custom_objects(form, tmp_path):
    lossary.keras.install()
    try:
        loss = {
            "object": lossary.keras.CategoricalFocalLoss
            if hasattr(lossary.keras, "CategoricalFocalLoss")
            else lossary.keras.CategoricalFocal,
            "function": lossary.keras.categorical_focal,
            "name": "categorical_focal",
        }[form]
        if form == "object":
            loss = loss(gamma=1.5, from_logits=True)
        model = tiny_model(activation="softmax" if form != "object" else None)
        model.compile("adam", loss, metrics=["accuracy"])
        whole = {"batch_size": len(X), "shuffle": False, "verbose": 0}
        model.fit(X, CLASSES, **whole)
        model.save(tmp_path / "m.keras")
        again = keras.models.load_model(tmp_path / "m.keras")
        one, other = (each.fit(X, CLASSES, epochs=2, **whole).history for each in (model, again))
        assert one.keys() == other.keys() == {"loss", "accuracy"}
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-5)
    finally:
        lossary.keras.uninstall()


def test_lists_and_dictionaries_of_losses():
    ours = lossary.keras
    for loss in (
        [ours.SparseCategoricalCrossentropy(from_logits=True), ours.MeanSquaredError()],
        {"head0": ours.SparseCategoricalCrossentropy(from_logits=True), "head1": ours.huber},
    ):
        model = tiny_model(outputs=2)
        model.compile("adam", loss)
        targets = [CLASSES, X[:, :2]]
        if isinstance(loss, dict):
            targets = dict(zip(loss, targets, strict=True))
        first = model.fit(X, targets, epochs=3, batch_size=len(X), verbose=0).history["loss"]
        assert first[-1] < first[0]


def test_installing_changes_names_only_until_uninstalled():
    own = keras.losses.get("mse")
    with pytest.raises(ValueError, match="Could not interpret"):
        keras.losses.get("pinball")
    lossary.keras.install()
    assert keras.losses.get("mse") is lossary.keras.mse
    assert keras.losses.get("pinball") is lossary.keras.pinball
    lossary.keras.uninstall()
    assert keras.losses.get("mse") is own


def test_several_predictions_from_one_output():
    """Keras gives a loss one tensor; mean and variance are its halves."""
    y_true = np.array([[0.5], [1.0]], "float32")
    y_pred = np.array([[0.0, 1.0], [2.0, 4.0]], "float32")
    value = lossary.keras.GaussianNll()(y_true, y_pred)
    assert float(value) == pytest.approx(0.5 * (0.25 + np.log(4.0) + 0.25) / 2, rel=1e-6)


def test_batches_of_unknown_size():
    """A generator whose last batch is smaller: shapes are not known in advance."""
    model = tiny_model()
    model.compile("adam", lossary.keras.SparseCategoricalCrossentropy(from_logits=True))

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            part = slice(15 * index, 15 * (index + 1))
            return X[part], CLASSES[part, None]

    history = model.fit(Batches(), epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
