"""Images from parquet and class folders: what is read is what lies there, and what cannot be read is said."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.data import cache, decoding, images
from genbench.data.image_sources import Source
from genbench.data.images import CroppedImageData, GroupedImageData, ImageData
from genbench.runs import execute, plan
from tests.helpers.forked import Forked
from tests.helpers.pictures import encoded, pixels, write_folders, write_parquet

TRAIN, TEST = [index % 3 for index in range(60)], [index % 3 for index in range(12)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    decoding.decoded.cache_clear()


@pytest.fixture
def folders(tmp_path):
    write_folders(tmp_path / "set" / "train", pixels(60), TRAIN)
    write_folders(tmp_path / "set" / "test", pixels(12, seed=1), TEST)
    return tmp_path / "set"


@pytest.fixture
def parquet(tmp_path):
    pytest.importorskip("pyarrow", reason="parquet needs the extra datasets")
    write_parquet(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet", pixels(60)[:40], TRAIN[:40], names="abc")
    write_parquet(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet", pixels(60)[40:], TRAIN[40:], names="abc")
    write_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", pixels(12, seed=1), TEST, names="abc")
    return tmp_path / "hub"


def build(path, **settings):
    decoding.decoded.cache_clear()
    return ImageData(path=str(path), **{"batch_size": 10, "normalize": "none", **settings})


def as_bytes(x):
    return (x * 255).round().to(torch.uint8)


def by_pixels(data, split):
    """label of each image of a split, by its bytes."""
    x, y = data.tensors(split)
    found = {as_bytes(image).numpy().tobytes(): int(label) for image, label in zip(x[:], y, strict=True)}
    assert len(found) == len(y)
    return found


@pytest.mark.parametrize("layout", ["folders", "parquet"])
def test_every_image_is_there_with_its_label(request, layout):
    data = build(request.getfixturevalue(layout))
    assert (data.classes, data.input_shape) == (3, (3, 8, 8))
    for split, drawn, labels in (("train", pixels(60), TRAIN), ("test", pixels(12, seed=1), TEST)):
        expected = {x.transpose(2, 0, 1).tobytes(): y for x, y in zip(drawn, labels, strict=True)}
        assert by_pixels(data, split) == expected


def test_the_identity_is_of_the_content_and_not_of_where_it_lies(parquet, tmp_path):
    one = build(parquet)
    assert build(parquet).digest == one.digest == build(parquet, train_size=20, seed=3).digest
    moved = parquet.rename(tmp_path / "elsewhere")
    assert build(moved).digest == one.digest
    assert build(moved, channels=1).digest != one.digest  # other bytes
    write_parquet(moved / "data" / "test-00000-of-00001.parquet", pixels(12, seed=1), [2, *TEST[1:]], names="abc")
    assert build(moved).digest != one.digest  # one label


def test_the_path_is_no_part_of_a_run(configure, folders, tmp_path):
    chosen = ["data=images", "model=linear", "measures={}", "callbacks={}", "data.train_size=50", "trainer.max_steps=5"]
    here = execute.run(configure(*chosen, f"data.path={folders}"))
    there = folders.rename(tmp_path / "moved")
    assert plan.plan(configure(*chosen, f"data.path={there}")).run_id == here["run_id"]
    assert "path" not in here["config"]["data"]
    assert str(tmp_path) not in json.dumps(here)


def test_decoded_once_and_again_where_damaged(folders, monkeypatch, tmp_path):
    digest = build(folders).digest
    image, decodings = decoding.image, []
    monkeypatch.setattr(decoding, "image", lambda *args, **kwargs: decodings.append(1) or image(*args, **kwargs))
    assert build(folders).digest == digest
    assert not decodings
    (file,) = (tmp_path / "cache" / "images").glob("*/train_x.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert build(folders).digest == digest
    assert len(decodings) == 72
    file.write_bytes(content[:-5])
    assert build(folders).digest == digest
    assert len(decodings) == 144
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 2  # the folder and its lock


def test_a_changed_file_is_decoded_anew(folders):
    digest = build(folders).digest
    (folders / "train" / "a" / "00000.png").write_bytes(encoded(pixels(1, seed=5)[0]))
    assert build(folders).digest != digest


def test_a_cache_that_cannot_be_written_is_named(folders, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cannot be kept in .*GENBENCH_CACHE$"):
        build(folders)


def test_channels_have_mean_0_and_deviation_1_over_the_whole_training_set(folders):
    data = build(folders, normalize="channels", train_size=20)
    reference = pixels(60).astype(np.float64)
    mean, std = reference.mean((0, 1, 2)), reference.std((0, 1, 2))
    test = torch.from_numpy((pixels(12, seed=1) - mean) / std).permute(0, 3, 1, 2)
    got = {
        as_bytes(r).numpy().tobytes(): x
        for r, x in zip(build(folders).tensors("test")[0][:], data.tensors("test")[0][:], strict=True)
    }
    for raw, expected in zip(pixels(12, seed=1), test, strict=True):
        torch.testing.assert_close(got[raw.transpose(2, 0, 1).tobytes()].double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("normalize", ["channels", "none"])
def test_the_scaling_says_how_inputs_are_images(folders, normalize):
    data = build(folders, normalize=normalize)
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in data.scaling)
    x = data.tensors("test")[0][:]
    plain = build(folders, normalize="none").tensors("test")[0][:]
    torch.testing.assert_close(x * std + mean, plain, atol=1e-6, rtol=0)
    assert not hasattr(build(folders, normalize="images"), "scaling")


def test_corruptions_of_normalized_images_are_measured_without_further_settings(folders, configure):
    chosen = [
        f"data.path={folders}",
        "data.size=null",
        f"trainer.max_steps={3}",
        "callbacks=robustness",
        "measures=norms",
    ]
    only = [f"~callbacks.robustness.measures.{name}" for name in ("fgsm_linf", "pgd_linf", "pgd_l2", "generator_drift")]
    config = configure("data=images", *chosen, *only, "model=linear", "data.batch_size=10", "data.train_size=40")
    metrics = execute.run(config)["metrics"]
    assert metrics["test/robustness/corrupted_accuracy"] is not None
    assert metrics["test/robustness/drift_rotation_5"] is not None


def test_each_image_is_standardized_by_itself(tmp_path):
    drawn = pixels(20)
    drawn[0] = 77  # no contrast: stays at 0, and is not divided by it
    drawn[1] = 77
    drawn[1, 0, 0, 0] = 78  # less contrast than 1 / √N of a grey value
    write_folders(tmp_path / "flat" / "train", drawn, [0, 1] * 10)
    write_folders(tmp_path / "flat" / "test", drawn, [0, 1] * 10)
    x = build(tmp_path / "flat", normalize="images").tensors("test")[0][:].double()
    flat = drawn.transpose(0, 3, 1, 2).reshape(20, -1)[[*range(0, 20, 2), *range(1, 20, 2)]].astype(np.float64)
    expected = (flat - flat.mean(1, keepdims=True)) / np.maximum(flat.std(1, keepdims=True), 192**-0.5)
    # the mean is a float32 below 128, and what is left is divided by at least 192^(-1/2)
    np.testing.assert_allclose(x.flatten(1).numpy(), expected, atol=128 * 2**-23 * 192**0.5, rtol=1e-6)


def test_grey_and_palette_images_are_converted(tmp_path):
    colour = pixels(1)[0]
    for split in ("train", "test"):
        for name, image in (("rgb", Image.fromarray(colour)), ("grey", Image.fromarray(colour[..., 0]))):
            (tmp_path / "mixed" / split / name).mkdir(parents=True)
            image.save(tmp_path / "mixed" / split / name / "0.png")
    grey, rgb = as_bytes(build(tmp_path / "mixed", batch_size=1).tensors("test")[0][:]).numpy()
    assert np.array_equal(rgb, colour.transpose(2, 0, 1))
    assert np.array_equal(grey, np.stack([colour[..., 0]] * 3))
    assert build(tmp_path / "mixed", batch_size=1, channels=1).input_shape == (1, 8, 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_is_white(mode, channels):
    """Black ink in the left half, at half strength in the next quarter; in modes with one transparent colour, that."""
    shape = np.zeros((4, 8), dtype=np.uint8)
    shape[:, :4] = 255
    expected = 255 - shape
    if mode in ("RGBA", "LA"):
        shape[:, 4:6] = 128
        expected[:, 4:6] = 127
        bands = [np.zeros_like(shape)] * (3 if mode == "RGBA" else 1) + [shape]
        picture, extra = Image.fromarray(np.stack(bands, -1), mode), {}
    else:  # ink has the value 0, what is transparent 10
        picture, extra = Image.fromarray(10 - shape // 255 * 10), {"transparency": 10}
        if mode == "P":
            picture.putpalette([k for k in range(256) for _ in "rgb"])
        elif mode == "RGB":
            picture, extra = picture.convert("RGB"), {"transparency": (10, 10, 10)}
    file = io.BytesIO()
    picture.save(file, "PNG", **extra)
    found = decoding.image("icon", file.getvalue(), channels=channels, size=None)
    assert np.array_equal(found, np.broadcast_to(expected, (channels, 4, 8)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says(orientation, tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(3, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    mirrored = pixels[:, ::-1] if orientation in (2, 4, 5, 7) else pixels  # the eight motions of a rectangle
    turned = np.rot90(mirrored, {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation])
    assert np.array_equal(
        decoding.image("photograph", file.getvalue(), channels=3, size=None), turned.transpose(2, 0, 1)
    )


def test_images_that_were_decoded_by_other_rules_are_decoded_anew(folders, monkeypatch):
    source = Source(
        hub=None,
        subset=None,
        path=str(folders),
        label="label",
        test_split="test",
        test_fraction=None,
        channels=3,
        size=None,
    )
    before = decoding.cache_name(source)
    monkeypatch.setattr(decoding, "_RULES", 1)
    assert decoding.cache_name(source) != before


def test_other_sizes_are_scaled_and_the_middle_taken(tmp_path):
    bars = np.zeros((8, 24, 3), dtype=np.uint8)
    bars[:, 8:16] = 200  # the middle third of a wide image
    for split in ("train", "test"):
        write_folders(tmp_path / "wide" / split, [bars, pixels(1, side=8)[0]], [0, 1])
    assert (as_bytes(build(tmp_path / "wide", batch_size=1, size=8).tensors("test")[0][:1]) == 200).all()
    x = as_bytes(build(tmp_path / "wide", batch_size=1, size=4).tensors("test")[0][:])
    scaled = np.asarray(Image.fromarray(bars).resize((12, 4), Image.Resampling.BICUBIC))
    assert np.array_equal(x[0], scaled[:, 4:8].transpose(2, 0, 1))


def test_a_share_of_the_training_images_may_be_tested_on(tmp_path):
    write_folders(tmp_path / "single", pixels(60), TRAIN)
    one, other = (build(tmp_path / "single", test_fraction=0.25, seed=seed) for seed in (0, 1))
    train, test = by_pixels(one, "train"), by_pixels(one, "test")
    assert (len(train), len(test)) == (45, 15)
    assert train | test == {x.transpose(2, 0, 1).tobytes(): y for x, y in zip(pixels(60), TRAIN, strict=True)}
    assert by_pixels(other, "test") == test


def test_settings_of_every_set(folders):
    clean, noisy = (build(folders, train_size=40, val_fraction=0.25, label_noise=share) for share in (0.0, 0.5))
    assert [len(clean.tensors(split)[1]) for split in ("train", "val", "test")] == [30, 10, 12]
    assert by_pixels(clean, "train").keys() | by_pixels(clean, "val").keys() < by_pixels(build(folders), "train").keys()
    assert by_pixels(noisy, "train").keys() == by_pixels(clean, "train").keys()
    assert by_pixels(noisy, "train") != by_pixels(clean, "train")
    copies = build(folders, duplicates=0.5).tensors("train")[0][:]
    assert len(copies.flatten(1).unique(dim=0)) == 30
    counts = torch.bincount(build(folders, train_size=30, imbalance=4).tensors("train")[1])
    assert counts.tolist() == [17, 9, 4]


@pytest.mark.parametrize("kind", ["shuffled_pixels", "random_pixels", "gaussian"])
def test_inputs_are_randomized_as_in_other_sets(folders, kind):
    plain, moved = (build(folders, normalize="channels", inputs=k) for k in ("original", kind))
    a, b = (data.tensors("train")[0][:].flatten(2) for data in (plain, moved))
    if kind == "gaussian":
        assert float(b.std()) == pytest.approx(float(a.std()), rel=0.05)
    else:
        assert torch.equal(a.sort(2).values, b.sort(2).values)
    assert not torch.equal(a, b)
    with pytest.raises(ValueError, match=r"data\.inputs is 'noise'; accepted: original, "):
        build(folders, inputs="noise")


def test_what_does_not_fit_is_read_from_disk_and_gives_the_same_batches(folders, monkeypatch):
    data = build(folders, normalize="channels", val_fraction=0.2)
    data.order_seeds = (0, 1)
    monkeypatch.setattr(images, "_fits", lambda size, device: False)
    streamed = build(folders, normalize="channels", val_fraction=0.2)
    streamed.order_seeds = (0, 1)
    assert streamed.tensors("train")[0].streamed
    assert not data.tensors("train")[0].streamed
    for epoch in (0, 1):
        for loader in (data.train_dataloader(), streamed.train_dataloader()):
            loader.set_epoch(epoch)
        pairs = list(zip(data.train_dataloader(), streamed.train_dataloader(), strict=True))
        assert len(pairs) == 4
        assert all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))
    for split in data.splits:
        pairs = zip(data.evaluation_batches(split), streamed.evaluation_batches(split), strict=True)
        assert all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))
    with pytest.raises(ValueError, match=r"data\.inputs is 'gaussian'; accepted: original, as set takes"):
        build(folders, inputs="gaussian")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loader_goes_on_where_it_stopped(folders, monkeypatch, streamed):
    monkeypatch.setattr(images, "_fits", lambda size, device: not streamed)
    loader = build(folders).train_dataloader()
    loader.set_epoch(1)
    whole = []
    for batch in loader:
        whole.append(batch)
        assert loader.state_dict() == {"epoch": 1, "position": len(whole)}  # though more was read ahead
    again = build(folders).train_dataloader()
    again.set_epoch(1)
    again.load_state_dict({"epoch": 1, "position": 4})
    rest = list(again)
    assert len(rest) == 2
    assert all(
        torch.equal(a, b) for one, other in zip(rest, whole[4:], strict=True) for a, b in zip(one, other, strict=True)
    )


def test_evaluation_reads_every_image_once_in_order(folders, monkeypatch):
    monkeypatch.setattr(images, "_EVALUATION", 192 * 25)
    data = build(folders)
    batches = data.evaluation_batches("train")
    assert [len(y) for _, y in batches] == [25, 25, 10]
    assert len(batches) == 3
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(x, data.tensors("train")[0][:])
    assert torch.equal(y, data.tensors("train")[1])
    assert torch.equal(batches[-1][1], y[50:])


def test_images_move_to_another_device(folders):
    data = build(folders).to("meta")
    x, y = next(iter(data.train_dataloader()))
    assert x.is_meta
    assert y.is_meta
    assert x.shape == (10, 3, 8, 8)


def test_lanes_that_differ_in_data_train_packed_as_alone(configure, folders, tmp_path):
    lanes = [
        ("seed=0",),
        ("seed=1", "data.label_noise=0.3"),
        ("seed=0", "data.duplicates=0.5"),
        ("data.inputs=gaussian",),
    ]
    fixed = ["data=images", f"data.path={folders}", "data.train_size=50", "model=linear", "measures={}"]
    configs = [configure(*fixed, "data.batch_size=9", *lane) for lane in lanes]
    found = execute.run_packed(configs, choices=[{}] * 4, overrides=[()] * 4)
    for config, record in zip(configs, found, strict=True):
        assert record["provenance"]["lanes"] == 4
        alone = execute.run({**config, "runs_dir": str(tmp_path / "alone")})
        assert alone["run_id"] == record["run_id"]
        for key, value in alone["metrics"].items():
            assert record["metrics"][key] == (None if value is None else pytest.approx(value, rel=1e-3, abs=1e-5)), key


SPARSE = """
from itertools import islice
from resource import RUSAGE_SELF, getrusage
from genbench.data import images
from genbench.data.images import ImageData

images._fits = lambda size, device: size < 2**30
data = ImageData(hub="nobody/sparse", batch_size=256)
assert data.tensors("train")[0].streamed
training, measuring = iter(data.train_dataloader()), iter(data.evaluation_batches("train"))
for batches in (training, measuring):
    for count in (20, 100):
        for x, y in islice(batches, count):
            assert x.shape[1:] == (3, 64, 64)
            assert len(x) == len(y) > 250
        print(getrusage(RUSAGE_SELF).ru_maxrss // 2**10)
"""


def test_memory_holds_the_batches_in_flight_and_not_the_set(tmp_path):
    """20 GiB of images on disk, of which only the labels take space there."""
    n, shape = 1_750_000, (3, 64, 64)
    source = Source(
        hub="nobody/sparse",
        subset=None,
        path=None,
        label="label",
        test_split="test",
        test_fraction=None,
        channels=3,
        size=None,
    )
    folder = cache.folder() / decoding.cache_name(source)
    folder.mkdir(parents=True)
    for split, count in (("train", n), ("test", 100)):
        with (folder / f"{split}_x.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
            )
            file.truncate(file.tell() + count * 3 * 64 * 64)
        np.save(folder / f"{split}_y.npy", np.arange(count) % 7)
    about = {"shapes": {"train": (n, *shape), "test": (100, *shape)}, "classes": 7, "digest": "0" * 64}
    (folder / "about.json").write_text(json.dumps({**about, "mean": [1.0] * 3, "std": [2.0] * 3}))
    assert (folder / "train_x.npy").stat().st_size > 20 * 2**30
    done = subprocess.run([sys.executable, "-c", SPARSE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    early, late, measured, later = map(int, done.stdout.split())  # MiB at most until then, libraries included
    assert late - early < 400  # 100 batches of 12 MiB, of which six are in flight
    assert later - measured < 400  # 100 batches of 16 MiB
    assert later < 2048


# -- what cannot be read


def refused(match, path, **settings):
    with pytest.raises(ValueError, match=match) as error:
        build(path, **settings)
    assert "\n" not in str(error.value)
    assert "; accepted" in str(error.value)


def test_a_corrupt_image_is_named(folders):
    file = folders / "train" / "b" / "00001.png"
    file.write_bytes(file.read_bytes()[:-30])
    refused(
        r"^b/00001\.png cannot be read as an image \(.*\); accepted: whole images, of which none is left out", folders
    )
    file.write_bytes(b"no image")
    refused(r"^b/00001\.png cannot be read as an image \(no known format of images\)", folders)


def test_a_corrupt_image_of_a_parquet_file_is_named(parquet):
    rows = [encoded(x) for x in pixels(20)]
    rows[13] = rows[13][:60]
    write_parquet(parquet / "data" / "train-00001-of-00002.parquet", rows, TRAIN[40:], names="abc")
    refused(r"^data/train-00001-of-00002\.parquet, row 13 cannot be read as an image", parquet)


def test_a_truncated_parquet_file_is_named(parquet):
    file = parquet / "data" / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:2000])
    refused(r"^data/train-00001-of-00002\.parquet cannot be read as parquet \(.*\); accepted: a whole file$", parquet)


def test_pages_of_a_parquet_file_that_are_damaged_are_named(parquet):
    file = parquet / "data" / "train-00001-of-00002.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(400) + content[404:])
    refused(r"^data/train-00001-of-00002\.parquet cannot be read as parquet", parquet)


def test_images_of_several_sizes(folders):
    file = folders / "train" / "c" / "00002.png"
    file.write_bytes(encoded(pixels(1, side=9)[0]))
    refused(r"images differ in size: a/00000\.png is 8 × 8, c/00002\.png is 9 × 9; accepted: .*data\.size", folders)
    assert build(folders, size=8).input_shape == (3, 8, 8)


def test_more_than_8_bits(folders):
    Image.fromarray(np.full((8, 8), 1000, dtype=np.uint16)).save(folders / "train" / "c" / "00002.png")
    refused(r"^c/00002\.png cannot be read as an image \(mode I;16, which is not 8 bits a channel\)", folders)


def test_no_images_and_no_folder(tmp_path):
    (tmp_path / "none" / "train").mkdir(parents=True)
    (tmp_path / "none" / "readme.txt").write_text("nothing here")
    refused(r"data\.path='.*none' has no images; accepted: a folder with train\*\.parquet", tmp_path / "none")
    refused(r"data\.path is '.*absent', where there is no folder; accepted", tmp_path / "absent")
    with pytest.raises(ValueError, match=r"data\.path and data\.hub are both null; accepted"):
        ImageData()


def test_missing_labels(parquet, tmp_path):
    file = parquet / "data" / "test-00000-of-00001.parquet"
    write_parquet(file, pixels(12), [0, 1, None, *TEST[3:]], names="abc")
    refused(r"^data/test-.*\.parquet, row 2 has the label -1.*; accepted: a class from 0 to 2", parquet)
    write_parquet(file, pixels(12), None)
    refused(r"^data/test-.*\.parquet has no column 'label' of labels \(data\.label\); accepted: one of img$", parquet)
    write_folders(tmp_path / "loose", pixels(6), [0, 1] * 3)
    (tmp_path / "loose" / "x.png").write_bytes(encoded(pixels(1)[0]))
    refused(r"^x\.png lies in no folder of a class: labels are missing", tmp_path / "loose", test_fraction=0.5)


def test_a_class_without_an_example(parquet, folders):
    file = parquet / "data" / "train-00001-of-00002.parquet"
    write_parquet(parquet / "data" / "train-00000-of-00002.parquet", pixels(40), [0, 1] * 20, names="abc")
    write_parquet(file, pixels(20), [0, 1] * 10, names="abc")
    refused(r"^class 2 \(c\) of hub has no training example; accepted: at least one of each", parquet)
    (folders / "train" / "empty").mkdir()
    refused(r"^class 3 \(empty\) of set has no training example", folders)


def test_a_class_that_is_only_tested(folders):
    (folders / "test" / "c").rename(folders / "test" / "other")
    refused(r"^test/other/.*\.png: 'other' is no class of training; accepted: a, b, c", folders)


def test_a_split_that_is_not_there(parquet, folders):
    (folders / "test").rename(folders / "val")
    refused(
        r"no split 'test', only train, val; accepted: data\.test_fraction in \(0, 1\), or data\.test_split=val", folders
    )
    assert len(build(folders, test_split="val").tensors("test")[1]) == 12
    (parquet / "data" / "test-00000-of-00001.parquet").unlink()
    refused(r"no split 'test', only train; accepted: data\.test_fraction in \(0, 1\)$", parquet)
    refused(r"has a folder a class and no split; accepted: data\.test_fraction", folders / "train")


def test_a_hub_without_a_network_names_the_alternative(tmp_path):
    """In a process of its own: the library reads its settings when it is imported."""
    pytest.importorskip("datasets", reason="the hub needs the extra datasets")
    code = "from genbench.data.images import ImageData; ImageData(hub='uoft-cs/cifar10')"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    _, err = Forked(code, environment=env).communicate(60)
    last = err.strip().splitlines()[-1]
    assert last.startswith(
        "ValueError: data.hub='uoft-cs/cifar10' cannot be read, for which a network is needed once ("
    )
    assert last.endswith("); accepted also: data.path=FOLDER with its parquet files or with a folder a class")


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = r"""data\.hub='a/b' needs: pip install "genbench\[datasets\]"; accepted also: data\.path=FOLDER"""
    with pytest.raises(ValueError, match=said):
        ImageData(hub="a/b")


def test_the_hubs_own_library_reads_the_same(parquet, monkeypatch, tmp_path):
    """A local repository stands for one of the hub."""
    pytest.importorskip("datasets", reason="the hub needs the extra datasets")
    local = build(parquet)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    hub = ImageData(hub=str(parquet), batch_size=10, normalize="none")
    assert hub.digest == local.digest
    assert hub.classes == 3


@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "on disk"])
def test_the_middle_is_cropped_before_each_image_is_standardized(folders, monkeypatch, streamed):
    monkeypatch.setattr(images, "_fits", lambda size, device: not streamed)
    whole = build(folders).tensors("train")[0][:]
    settings = {"path": str(folders), "batch_size": 10, "crop": 5}
    plain = CroppedImageData(normalize="none", **settings)
    assert plain.input_shape == (3, 5, 5)
    assert torch.equal(plain.tensors("train")[0][:], whole[:, :, 1:6, 1:6])  # of 8 × 8
    x = CroppedImageData(normalize="images", **settings).tensors("train")[0][:].double()
    assert torch.allclose(x.mean((1, 2, 3)), torch.zeros(60, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(x.std((1, 2, 3), correction=0), torch.ones(60, dtype=torch.float64), atol=1e-6)
    batch, _ = next(iter(plain.train_dataloader()))
    assert batch.shape == (10, 3, 5, 5)
    with pytest.raises(ValueError, match=r"data.crop is 9; accepted: an integer from 1 to 8 \(the shorter side\)"):
        CroppedImageData(**{**settings, "crop": 9})


# -- groups of classes, and attack sets


def grouped(path, **settings):
    decoding.decoded.cache_clear()
    settings = {"groups": [[2], [0, 1]], "batch_size": 10, "normalize": "none", **settings}
    return GroupedImageData(path=str(path), **settings)


@pytest.mark.parametrize("layout", ["folders", "parquet"])
def test_groups_of_classes_are_the_classes(request, layout):
    path = request.getfixturevalue(layout)
    whole, data = build(path), grouped(path)
    assert data.classes == 2
    assert data.digest == whole.digest
    for split in ("train", "test"):
        expected = {image: int(label != 2) for image, label in by_pixels(whole, split).items()}
        assert by_pixels(data, split) == expected


def test_images_of_no_group_are_left_out(folders):
    found = by_pixels(grouped(folders, groups=[[1], [0]]), "train")
    expected = {image: 1 - label for image, label in by_pixels(build(folders), "train").items() if label != 2}
    assert found == expected
    assert len(expected) == 40


def test_an_attack_set_has_wrong_classes_and_is_added_to_the_same_images(folders):
    truth = {split: by_pixels(grouped(folders), split) for split in ("train", "test")}
    clean = by_pixels(grouped(folders, train_size=20, seed=1), "train")
    assert all(truth["train"][image] == label for image, label in clean.items())
    before = clean
    for attack in (5, 12, 40):
        data = grouped(folders, train_size=20, attack_size=attack, seed=1)
        found = by_pixels(data, "train")
        assert len(found) == 20 + attack
        assert before.items() <= found.items()  # smaller ones lie within larger ones
        wrong = {image for image, label in found.items() if truth["train"][image] != label}
        assert wrong == set(found) - set(clean)
        assert by_pixels(data, "test") == truth["test"]
        before = found
    assert set(by_pixels(grouped(folders, train_size=20, seed=2), "train")) != set(clean)


def test_a_part_of_the_test_images_is_the_same_for_every_seed(folders):
    one, other = (by_pixels(grouped(folders, test_size=5, seed=seed), "test") for seed in (0, 1))
    assert len(one) == 5
    assert one == other
    assert one.items() < by_pixels(grouped(folders), "test").items()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": [[0, 1, 2]]}, r"data.groups is \[\[0, 1, 2\]\]; accepted: at least two lists of classes"),
        ({"groups": [[0], []]}, "data.groups is "),
        ({"groups": [0, 1]}, r"data.groups is \[0, 1\]; accepted: at least two lists of classes"),
        ({"groups": "even"}, "data.groups is 'even'; accepted: at least two lists of classes"),
        ({"groups": [[0], ["a"]]}, "data.groups is 'a'; accepted: an integer from 0 to 2"),
        ({"groups": [[0], [1, 0]]}, "data.groups is .*each class at most once"),
        ({"groups": [[0], [3]]}, r"data.groups is 3; accepted: an integer from 0 to 2 \(the classes of set\)"),
        ({"attack_size": 5}, "data.attack_size is 5; accepted: 0 where data.train_size is null"),
        ({"train_size": 61}, r"data.train_size is 61; accepted: an integer from 1 to 60 \(the training images\)"),
        ({"train_size": 50, "attack_size": 11}, "data.attack_size is 11; accepted: an integer from 0 to 10 "),
        ({"test_size": 13}, r"data.test_size is 13; accepted: an integer from 1 to 12 \(the test images\)"),
    ],
)
def test_groups_and_attack_sets_that_cannot_be(folders, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        grouped(folders, **settings)


def test_groups_and_attack_sets_tell_runs_apart(configure, folders):
    chosen = ["data=grouped_images", "model=linear", "measures={}", "callbacks={}", f"data.path={folders}"]
    chosen += ["data.train_size=40", "data.batch_size=10", "trainer.max_steps=5"]
    variants = (
        ["data.groups=[[0],[1,2]]"],
        ["data.groups=[[1],[0,2]]"],
        ["data.groups=[[0],[1,2]]", "data.attack_size=5"],
    )
    runs = [execute.run(configure(*chosen, *more)) for more in variants]
    assert [run["status"] for run in runs] == ["completed"] * 3
    assert len({run["run_id"] for run in runs}) == 3
