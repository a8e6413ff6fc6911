"""Yes or no: surprise, and margins."""

# ruff: noqa: D103, F821  (the names of functions are bound by the toolchains)
# mypy: ignore-errors


def binary_cross_entropy(prediction, target, label_smoothing, pos_weight):
    if label_smoothing == 0.0 and pos_weight == 1.0:
        yes = target
        no = 1.0 - target
        mass = 1.0
    else:
        keep = 1.0 - label_smoothing
        moved = 0.5 * label_smoothing
        yes = (target * keep + moved) * pos_weight
        no = (1.0 - target) * keep + moved
        mass = yes + no
    return surprise_of_logit(prediction, yes, no, mass)


def binary_cross_entropy_of_probabilities(prediction, target, label_smoothing, pos_weight):
    # Exactly 0 or 1 counts as the nearest number inside, and keeps its slope.
    inside = where(prediction < smallest, smallest, prediction)
    inside = where(inside > below_one, below_one, inside)
    rest = 1.0 - inside
    if label_smoothing == 0.0 and pos_weight == 1.0:
        yes = target
        no = 1.0 - target
        pull = inside - target
    else:
        keep = 1.0 - label_smoothing
        moved = 0.5 * label_smoothing
        yes = (target * keep + moved) * pos_weight
        no = (1.0 - target) * keep + moved
        pull = no * inside - yes * rest
    value = -(yes * log(inside) + no * log1p(-inside))
    return value, pull / (inside * rest)


def binary_focal(prediction, target, gamma, alpha):
    positive = prediction > 0.0
    wrong_share = where(positive, 1.0 - target, target)
    right_share = where(positive, target, 1.0 - target)
    if alpha < 0.0:
        against = wrong_share
        agreeing = right_share
    else:
        yes = alpha * target
        no = (1.0 - alpha) * (1.0 - target)
        against = where(positive, no, yes)
        agreeing = where(positive, yes, no)
    distance = absolute(prediction)
    odds = exp_below(-distance)
    sure = ratio(1.0, 1.0 + odds)
    miss = where(against == 0.0, 0.0, against * distance)
    surprise = (against + agreeing) * log1p_unit(odds) + miss
    wrong = sure * (wrong_share + right_share * odds)
    right = sure * (right_share + wrong_share * odds)
    # d focus = gamma focus / wrong d wrong, and d wrong = (wrong share - right share) bend.
    if gamma == 2.0:
        focus = wrong * wrong
        steeper = wrong
    else:
        power = where(wrong > 0.0, exp(-gamma * log1p(right / wrong)), wrong)
        focus = where(gamma == 0.0, 1.0, power)
        steeper = where(wrong > 0.0, focus / wrong, 0.0)
    bend = sure * (sure * odds)
    bend = where(bend > 0.0, bend * surprise, bend)
    value = where(surprise == 0.0, 0.0, focus * surprise)
    pull = sure * (against - agreeing * odds)
    slope = focus * pull + gamma * steeper * ((wrong_share - right_share) * bend)
    return value, where(positive, slope, -slope)


def real_world_weight_binary_cross_entropy(
    prediction, target, false_negative_cost, false_positive_cost
):
    yes = target * false_negative_cost
    no = (1.0 - target) * false_positive_cost
    return surprise_of_logit(prediction, yes, no, yes + no)


def real_world_weight_multilabel_cross_entropy(
    prediction, target, false_negative_costs, false_positive_costs
):
    yes = target * false_negative_costs
    no = (1.0 - target) * false_positive_costs
    return surprise_of_logit(prediction, yes, no, yes + no)


def hinge(prediction, target, margin):
    side = where(target == 0.0, -1.0, target)
    short = margin - side * prediction
    return where(short <= 0.0, 0.0, short), where(short <= 0.0, 0.0, -side)


def squared_hinge(prediction, target, margin):
    side = where(target == 0.0, -1.0, target)
    short = margin - side * prediction
    short = where(short <= 0.0, 0.0, short)
    return short * short, -2.0 * side * short


def soft_margin(prediction, target):
    side = where(target == 0.0, -1.0, target)
    z = side * prediction
    odds = exp_below(-absolute(z))
    sure = ratio(1.0, 1.0 + odds)
    value = log1p_unit(odds) + where(z > 0.0, 0.0, -z)
    return value, -side * where(z > 0.0, odds * sure, sure)


def hinge_embedding(prediction, target, margin):
    alike = target == 1.0
    short = margin - prediction
    apart = where(short <= 0.0, 0.0, short)
    return where(alike, prediction, apart), where(alike, 1.0, where(short <= 0.0, 0.0, -1.0))


def margin_ranking(first, second, target, margin):
    side = where(target == 0.0, -1.0, target)
    short = margin - side * (first - second)
    pull = where(short <= 0.0, 0.0, side)
    return where(short <= 0.0, 0.0, short), -pull, pull
