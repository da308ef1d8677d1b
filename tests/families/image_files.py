"""Images and questions for tiny models with a real processor."""

import numpy as np
from PIL import Image

QUESTIONS = ["What is in the image?", "Is it a dog?"]


def image(width, height, seed):
    noise = np.random.RandomState(seed).randint(0, 255, (height, width, 3))
    return Image.fromarray(noise.astype(np.uint8))


IMAGES = [image(60, 40, 1), image(33, 64, 2)]
