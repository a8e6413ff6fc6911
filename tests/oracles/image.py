"""Structural similarity from Wang 2003, 2004 and Zhao 2017; nested lists (channels, d1, ...)."""

from itertools import product

from mpmath import exp, fdot, fsum, mpf


def _shape(image):
    return (len(image), *_shape(image[0])) if isinstance(image, list) else ()


def _flat(image):
    if not isinstance(image, list):
        return [image]
    return [number for part in image for number in _flat(part)]


def _window(width, sigma, dimensions):
    """{offset: weight} of the Gaussian window over all dimensions at once."""
    line = [
        exp(-((mpf(i) - mpf(width - 1) / 2) ** 2) / (2 * mpf(sigma) ** 2)) for i in range(width)
    ]
    total = fsum(line)
    weights = {}
    for offset in product(range(width), repeat=dimensions):
        weight = mpf(1)
        for i in offset:
            weight *= line[i] / total
        weights[offset] = weight
    return weights


class _Channel:
    """One channel as a flat list that windows look into."""

    def __init__(self, nested, shape):
        self.numbers, self.shape = _flat(nested), shape

    def seen(self, corner, offsets):
        """The numbers in the window at ``corner``, in the order of ``offsets``."""
        found = []
        for offset in offsets:
            place = 0
            for side, start, step in zip(self.shape, corner, offset, strict=True):
                place = place * side + start + step
            found.append(self.numbers[place])
        return found

    def halved(self):
        shape = tuple(side // 2 for side in self.shape)
        corners = list(product(range(2), repeat=len(shape)))
        numbers = [
            fsum(self.seen(tuple(2 * i for i in place), corners)) / len(corners)
            for place in product(*map(range, shape))
        ]
        return _Channel(numbers, shape)


def _maps(x, y, width, sigma, c1, c2):
    """(luminance, contrast and structure) in every window that lies inside."""
    window = _window(width, sigma, len(x.shape))
    offsets, weights = list(window), list(window.values())
    found = []
    for corner in product(*(range(side - width + 1) for side in x.shape)):
        a, b = x.seen(corner, offsets), y.seen(corner, offsets)
        mean_a, mean_b = fdot(weights, a), fdot(weights, b)
        variance_a = fdot(weights, [i * i for i in a]) - mean_a**2
        variance_b = fdot(weights, [i * i for i in b]) - mean_b**2
        covariance = fdot(weights, [i * j for i, j in zip(a, b, strict=True)]) - mean_a * mean_b
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
        found.append((luminance, structure))
    return found


def _channels(prediction, target):
    shape = _shape(prediction)[1:]
    return [
        (_Channel(x, shape), _Channel(y, shape)) for x, y in zip(prediction, target, strict=True)
    ]


def _mean(values):
    return fsum(values) / len(values)


def _constants(k1, k2, data_range):
    return (mpf(k1) * data_range) ** 2, (mpf(k2) * data_range) ** 2


def ssim(prediction, target, *, window, sigma, k1, k2, data_range, half):
    constants = _constants(k1, k2, data_range)
    similarity = [
        luminance * structure
        for x, y in _channels(prediction, target)
        for luminance, structure in _maps(x, y, window, sigma, *constants)
    ]
    return (1 - _mean(similarity)) / (2 if half else 1)


def ms_ssim(prediction, target, *, scale_weights, window, sigma, k1, k2, data_range):
    constants = _constants(k1, k2, data_range)
    values = []
    for x, y in _channels(prediction, target):
        similarity = mpf(1)
        for level, exponent in enumerate(scale_weights):
            maps = _maps(x, y, window, sigma, *constants)
            if level == len(scale_weights) - 1:
                factor = _mean([luminance * structure for luminance, structure in maps])
            else:
                factor = _mean([structure for _, structure in maps])
                x, y = x.halved(), y.halved()
            similarity *= max(factor, mpf(0)) ** mpf(exponent)
        values.append(1 - similarity)
    return _mean(values)


def ms_ssim_l1(prediction, target, *, alpha, sigmas, window, k1, k2, data_range):
    constants = _constants(k1, k2, data_range)
    values = []
    for x, y in _channels(prediction, target):
        scales = [_maps(x, y, window, sigma, *constants) for sigma in sigmas]
        widest = _window(window, sigmas[-1], len(x.shape))
        corners = product(*(range(side - window + 1) for side in x.shape))
        for number, corner in enumerate(corners):
            similarity = scales[-1][number][0]
            for scale in scales:
                similarity *= scale[number][1]
            a, b = x.seen(corner, widest), y.seen(corner, widest)
            error = fdot(list(widest.values()), [abs(i - j) for i, j in zip(a, b, strict=True)])
            values.append(alpha * (1 - similarity) + (1 - alpha) * error)
    return _mean(values)


# The defaults last: torch.compile unrolls a window place by place and proves the first alone.
PARAMETERS = {
    "ms_ssim": [{"scale_weights": (0.25, 0.75), "window": 5}, {}],
    "ms_ssim_l1": [
        {"sigmas": (0.5, 1.0, 2.0), "window": 5},
        {"sigmas": (0.5, 1.0, 2.0), "window": 5, "alpha": 0.25},
        {},
    ],
}
