"""Labels from tables, folders, mappings and lists."""

import numpy as np
import PIL.Image
import pytest

import face_jax as fj
from face_jax.pictures.labels import labels_of
from face_jax.support.classes import UnknownClassError

CLASSES = ("cat", "dog", "2")


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/a.png", "cat/b.png", "dog/a.png", "dog/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.full((4, 4, 3), len(name), np.uint8)).save(tmp_path / name)
    return tmp_path


def read(folder, text, classes=CLASSES):
    (folder / "labels.csv").write_text(text)
    photographs = [one for one in fj.photographs(folder) if one.name.endswith("png")]
    return labels_of(photographs, folder / "labels.csv", classes)


def told(labels):
    return {one.name: at for one, at in zip(labels.photographs, labels.index.tolist(), strict=True)}


def test_folders_are_classes(folder):
    found = labels_of(fj.photographs(folder), "folders", CLASSES)
    assert told(found) == {"cat/a.png": 0, "cat/b.png": 0, "dog/a.png": 1, "dog/c.png": 1}
    assert found.groups == ()


def test_files_of_one_folder_have_its_name(folder):
    assert labels_of(fj.photographs(folder / "dog"), "folders", CLASSES).index.tolist() == [1, 1]


def test_a_table_names_files_by_path_by_name_or_by_their_last_part(folder):
    found = read(folder, f"file,label,group\ncat/a.png,dog,x\n{folder / 'cat' / 'b.png'},1,y\nc.png,cat,x\n")
    assert told(found) == {"cat/a.png": 1, "cat/b.png": 1, "dog/c.png": 0}
    assert found.groups == ("x", "y")
    assert found.group.tolist() == [0, 1, 0]


def test_columns_may_stand_in_any_order_beside_others(folder):
    assert told(read(folder, "\ufefflabel,more,file\ncat,7,dog/c.png\n")) == {"dog/c.png": 0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,label\na.png,cat\n", "has no column 'file'"),
        ("file\ncat/a.png\n", "has no column 'label'"),
        ("file,label\nnone.png,cat\n", "has none of the 4 photographs"),
        ("file,label\na.png,cat\n", "has none of the 4 photographs"),
        ("file,label\nc.png,\n", "line 2 of labels.csv has no label"),
        ("file,label\nc.png,cat\ndog/c.png,dog\n", "says something else of 'dog/c.png' than line 2"),
        ("file,label,group\nc.png,cat,\ncat/b.png,cat,x\n", "line 2 of labels.csv has no group"),
        ("", "has no column 'file'"),
    ],
)
def test_tables_that_arent_valid_are_refused(folder, text, said):
    with pytest.raises(ValueError, match=said):
        read(folder, text)


def test_a_label_that_is_no_class_is_named_with_its_line(folder):
    with pytest.raises(UnknownClassError, match=r"line 3 of labels\.csv: label='cow' isn't a class"):
        read(folder, "file,label\ncat/a.png,cat\nc.png,cow\n")


def test_mappings_and_lists(folder):
    photographs = fj.photographs(folder)
    assert told(labels_of(photographs, {"dog/c.png": "cat", "else": 1}, CLASSES)) == {"dog/c.png": 0}
    assert labels_of(photographs, np.asarray([0, 1, 2, 0]), CLASSES).index.tolist() == [0, 1, 2, 0]


def test_folders_may_have_underlines_for_spaces(tmp_path):
    for name in ("English_springer", "gas-pump"):
        (tmp_path / name).mkdir()
        PIL.Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    classes = ("gas pump, petrol pump", "English springer, English springer spaniel")
    assert told(labels_of(fj.photographs(tmp_path), "folders", classes)) == {
        "English_springer/a.png": 1,
        "gas-pump/a.png": 0,
    }
