"""Inception Score and FID against closed forms, stock weights from a file, and the preference sheet filled in."""

import csv
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.inception import Inception3
from toy import write_toy

from handaug.augment.preference import Preference, Trial, count_answers, write_sheet
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.estimators import build_estimator, save_estimator
from handaug.models.feature_scores import FeatureNetwork, InceptionNetwork, feature_scores, load_feature_network
from handaug.models.fid_inception import FID_CLASSES, inception_of


class Known(FeatureNetwork):
    """Features are the first four pixels, logits say the first pixel with certainty."""

    num_features, note = 4, "known"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.float().flatten(1)[:, :4]

    def logits(self, images: Tensor) -> Tensor:
        return 100.0 * functional.one_hot(images.flatten(1)[:, 0].long(), 8).float()


def test_scores_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    real = rng.integers(0, 8, (4000, 2, 2, 1)).astype(np.uint8)
    moved = real + np.array([0, 0, 3, 0], np.uint8).reshape(2, 2, 1)
    found = feature_scores(Known(), real, moved)
    assert found["fid"] == pytest.approx(
        9.0, abs=0.01
    )  # the means differ by 3 in one feature, the covariances by nothing
    assert found["inception_score"] == pytest.approx(8.0, abs=0.15)  # eight classes, each certain, equally often
    assert feature_scores(Known(), real, real)["fid"] == pytest.approx(0.0, abs=1e-4)
    one = np.zeros_like(real)
    assert feature_scores(Known(), real, one)["inception_score"] == pytest.approx(1.0)
    assert found == feature_scores(Known(), real, moved)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = Inception3(num_classes=FID_CLASSES, aux_logits=False, init_weights=False)
    return dict(network.state_dict())


def test_stock_weights_load_from_a_file_and_run(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "pt_inception.pth"
    torch.save({k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}, path)
    rows = HandDataset(write_toy(tmp_path / "toy.h5", 8, size=32))
    network = load_feature_network(path, rows)
    images = torch.from_numpy(rows.read("images", np.arange(2))).permute(0, 3, 1, 2)
    features, logits = network(images), network.logits(images)
    assert features.shape == (2, 2048) and logits.shape == (2, 1008) and "stock" in network.note
    torch.testing.assert_close(logits, features @ weights["fc.weight"].T)  # without the bias
    half = path.with_name("half.pth")
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    alien = path.with_name("alien.pth")
    torch.save(nn.Linear(2, 2).state_dict(), alien)
    for bad, message in ((half, "or is damaged"), (alien, "no Inception v3"), (tmp_path / "none.pth", "no such file")):
        with pytest.raises(InputError, match=message):
            load_feature_network(bad, rows)


def test_the_two_inceptions_differ_where_they_should(weights: dict[str, Tensor]) -> None:
    """Pooling in the blocks, against torch's own on a map with a border; the other network is torchvision's."""
    first = inception_of(weights)
    features = torch.rand(1, 192, 5, 5)
    pooled = first.Mixed_5b.branch_pool(functional.avg_pool2d(features, 3, 1, 1, count_include_pad=False))
    torch.testing.assert_close(first.Mixed_5b(features)[:, -32:], pooled)
    deep = torch.rand(1, 2048, 4, 4)
    highest = first.Mixed_7c.branch_pool(functional.max_pool2d(deep, 3, 1, 1))
    torch.testing.assert_close(first.Mixed_7c(deep)[:, -192:], highest)
    other = dict(weights, **{"fc.weight": torch.rand(1000, 2048), "fc.bias": torch.rand(1000)})
    network = InceptionNetwork(other).eval()
    plain = Inception3(aux_logits=False, init_weights=False)
    plain.load_state_dict(other)
    images = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(network.logits(images), plain.eval()(images / 127.5 - 1.0), rtol=1e-3, atol=1e-3)
    assert "not the network of the published" in network.note


def test_an_estimator_gives_features_and_kinds_of_pose(tmp_path: Path) -> None:
    rows = HandDataset(write_toy(tmp_path / "toy.h5", 40, size=32))
    torch.manual_seed(0)
    judge = build_estimator("compact", size=(32, 32), channels=1, width=8)
    nn.init.normal_(judge.get_parameter("maps.weight"))
    save_estimator(tmp_path / "judge", judge, {})
    network = load_feature_network(tmp_path / "judge", rows)
    images = rows.read("images")
    found = feature_scores(network, images, images)
    assert "no published figure" in network.note
    assert found["fid"] == pytest.approx(0.0, abs=1e-3) and 1.0 < found["inception_score"] <= 16.0
    noise = np.random.default_rng(0).integers(0, 256, images.shape).astype(np.uint8)
    assert feature_scores(network, images, noise)["fid"] > 100 * max(found["fid"], 1e-6)
    wrong = HandDataset(write_toy(tmp_path / "large.h5", 8, size=48))
    with pytest.raises(InputError, match="--features"):
        load_feature_network(tmp_path / "judge", wrong)


# --- the preference sheet ---


class Forms(HTMLParser):
    """What a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[str] = []
        self.images: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input":
            self.fields.append(f"{given['name']}={given['value']}")
        if tag == "img":
            self.images.append(str(given["src"]))
        self.links += [str(given[k]) for k in ("href", "src") if k in given]


def trials(count: int) -> list[Trial]:
    def image(level: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.full((8, 8, 1), level, np.uint8)

    return [Trial(image(1), image(2), image(3), image(200)) for _ in range(count)]


def test_the_sheet_needs_nothing_else_and_hides_whose_is_whose(tmp_path: Path) -> None:
    sheet, key = write_sheet(tmp_path / "out", trials(30), ("self", "paired"))
    seen = Forms()
    seen.feed(sheet.read_text())
    assert len(seen.fields) == 90 and "t0=left" in seen.fields and "t29=same" in seen.fields
    assert len(seen.images) == 120 and all(link.startswith("data:image/png;base64,") for link in seen.links)
    assert not re.search(r"self|paired", re.sub(r"data:[^\"]*", "", sheet.read_text()))
    with open(key) as file:
        lines = list(csv.DictReader(file))
    first_left = [line["left"] == "self" for line in lines]
    assert 0 < sum(first_left) < 30  # sides are drawn
    # The image on the left of each line is that of the method which the key names.
    dark = [seen.images[4 * i + 2] for i in range(30)]
    assert len({(image, left) for image, left in zip(dark, first_left, strict=True)}) == 2


def test_answers_are_joined_with_the_key(tmp_path: Path) -> None:
    _, key = write_sheet(tmp_path, trials(20), ("self", "paired"))
    with open(key) as file:
        lines = list(csv.DictReader(file))
    answers = tmp_path / "answers.csv"
    for_self = ["left" if line["left"] == "self" else "right" for line in lines[:12]]
    chosen = [*for_self, *["left" if line["left"] == "paired" else "right" for line in lines[12:18]], "same", "same"]
    answers.write_text("trial,answer\n" + "".join(f"{i},{one}\n" for i, one in enumerate(chosen)))
    found = count_answers(key, [answers])
    assert dict(zip(found.names, found.counts, strict=True)) == {"self": 12, "paired": 6} and found.undecided == 2
    assert count_answers(key, [answers, answers]).counts == tuple(2 * n for n in found.counts)
    for text, message in (
        ("trial,answer\n99,left\n", "line 2 is not an answer"),
        ("trial,answer\n0,left\n1,up\n", "line 3 is not an answer"),
        ("a,b\n1,2\n", "must have the columns"),
    ):
        answers.write_text(text)
        with pytest.raises(InputError, match=message):
            count_answers(key, [answers])
    with pytest.raises(InputError, match="cannot be read as CSV"):
        count_answers(key, [tmp_path / "none.csv"])


def test_the_interval_is_wilsons() -> None:
    low, high = Preference(("a", "b"), (529, 495), 0).ci95
    # Both ends solve |p - s| = z sqrt(p (1 - p) / n).
    for end in (low, high):
        assert abs(529 / 1024 - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / 1024))
    assert Preference(("a", "b"), (0, 0), 3).ci95 == (0.0, 1.0)
