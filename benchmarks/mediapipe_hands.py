"""MediaPipe Hands over images, in an environment of its own: started by realism.py, imports nothing of handaug.

    python mediapipe_hands.py IMAGES.npy OUT.npz

IMAGES is (N, H, W, 3) uint8 RGB. OUT holds, for each image, `landmarks` (N, 21, 2) as shares of width and height, NaN
where no hand was found; `label` (N,) MediaPipe's word, empty where none; `score` (N,) that of the word. Each image
is looked at on its own, with the heavier of the two models and MediaPipe's own thresholds.
"""

import sys

import mediapipe
import numpy


def main() -> None:
    images = numpy.load(sys.argv[1], mmap_mode="r")
    landmarks = numpy.full((len(images), 21, 2), numpy.nan, numpy.float32)
    label, score = numpy.full(len(images), "", "<U5"), numpy.zeros(len(images), numpy.float32)
    with mediapipe.solutions.hands.Hands(static_image_mode=True, max_num_hands=1, model_complexity=1) as hands:
        for i, image in enumerate(images):
            found = hands.process(numpy.ascontiguousarray(image))
            if not found.multi_hand_landmarks:
                continue
            landmarks[i] = [(point.x, point.y) for point in found.multi_hand_landmarks[0].landmark]
            word = found.multi_handedness[0].classification[0]
            label[i], score[i] = word.label, word.score
    numpy.savez(sys.argv[2], landmarks=landmarks, label=label, score=score)


if __name__ == "__main__":
    main()
