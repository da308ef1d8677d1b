"""Pictures and questions for tiny models with a real processor."""

import numpy as np
from PIL import Image

QUESTIONS = ["What is in the picture?", "Is it a dog?"]


def picture(width, height, seed):
    noise = np.random.RandomState(seed).randint(0, 255, (height, width, 3))
    return Image.fromarray(noise.astype(np.uint8))


IMAGES = [picture(60, 40, 1), picture(33, 64, 2)]
