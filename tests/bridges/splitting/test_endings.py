"""One logit, several labels, and sigmoids at the end: what is told from a torch network, and what is taken off."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import small_models as small
import torch
from torch import nn

import face_jax as fj
from face_jax import bridges
from face_jax.heads import Affine

EIGHT = fj.Preprocess(size=8, resize=8)
IMAGES = np.random.default_rng(0).standard_normal((3, 8, 8, 3))


class Ending(nn.Module):
    """A network and what is done with its output."""

    def __init__(self, body, end):
        super().__init__()
        self.body, self.end = body, end

    def forward(self, x):
        return self.end(self.body(x))


class Sigmoids(nn.Module):
    """A module that is a sigmoid inside, followed by what rearranges."""

    def __init__(self):
        super().__init__()
        self.act = nn.Sigmoid()

    def forward(self, z):
        return self.act(z).flatten(1)


def network(classes, end=None, build: type = small.Plain):
    body = build(classes=classes) if build is small.Plain else build()
    return small.randomized(body if end is None else Ending(body, end)).double().eval()


def answers(model, images=IMAGES):
    with torch.no_grad():
        return model(torch.from_numpy(images).movedim(-1, 1)).numpy()


def layer_of(model):
    return "body.body" if isinstance(model, Ending) else "body"


ONE = {
    "a column": None,
    "no axis": lambda z: z.squeeze(1),
    "no axes at all for one image": lambda z: z.squeeze(),
    "an index": lambda z: z[:, 0],
    "flattened": lambda z: z.flatten(),
    "a view": lambda z: z.view(z.size(0)),
    "a sigmoid": nn.Sigmoid(),
    "a sigmoid without an axis": lambda z: torch.sigmoid(z).squeeze(1),
    "a sigmoid of no axis": lambda z: torch.sigmoid(z.squeeze(-1)),
}


@pytest.mark.parametrize("end", ONE.values(), ids=ONE)
@pytest.mark.parametrize("layer", ["body", "body.2"])
def test_one_logit_is_binary(end, layer):
    model = network(1, end)
    name = layer if end is None else f"body.{layer}"
    split = bridges.split(model, name, preprocess=EIGHT, classes=["cat"])
    assert split.classes == ("not cat", "cat")
    assert split.outputs == fj.Binary()
    assert split.notes == ()
    # As affine as it was.
    assert split.head.affine is (layer == "body")
    said = answers(model)
    z = answers(model if end is None else model.body)
    for images in (IMAGES, IMAGES[:1]):
        given = np.asarray(split.head(split.features(images)))
        expected = np.concatenate([0 * z, z], axis=1)[: len(images)]
        np.testing.assert_allclose(given, expected, rtol=1e-10, atol=1e-12)
    if said.min() >= 0 and said.max() <= 1 and end is not None:
        np.testing.assert_allclose(split.outputs.probability(expected, 1), said.reshape(-1)[:1], rtol=1e-10)


def test_an_affine_head_keeps_its_very_weights():
    model = network(1).float()
    split = bridges.split(model, "body", preprocess=EIGHT)
    assert isinstance(split.head, Affine)
    np.testing.assert_array_equal(split.head.kernel[:, 1], model.fc.weight.detach().numpy()[0])
    np.testing.assert_array_equal(split.head.kernel[:, 0], 0)
    assert split.classes == ("class 0", "class 1")


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (["cat"], ("not cat", "cat")),
        ("cat", ("not cat", "cat")),
        (["dog", "cat"], ("dog", "cat")),
        ({"dog": 0, "cat": 1}, ("dog", "cat")),
        ({0: "cat"}, ("not cat", "cat")),
    ],
)
def test_both_classes_of_one_logit_have_names(given, known):
    assert bridges.split(network(1), "body", preprocess=EIGHT, classes=given).classes == known


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", "b", "c"], "classes has 3 names and the model gives 1 logit"),
        ([], "classes has 0 names and the model gives 1 logit"),
        ("ox", r"may be one name or two letters; give \['ox'\] or \['o', 'x'\]"),
    ],
)
def test_other_names_of_one_logit_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        bridges.split(network(1), "body", preprocess=EIGHT, classes=given)


def test_a_single_label_keeps_its_logit():
    split = bridges.split(network(1, ONE["no axis"]), "body.body", preprocess=EIGHT, classes=["cat"], multi_label=True)
    assert (split.classes, split.outputs) == (("cat",), fj.MultiLabel())
    assert split.head(split.features(IMAGES)).shape == (3, 1)
    rare = fj.MultiLabel(0.1)
    assert bridges.split(network(1), "body", preprocess=EIGHT, multi_label=rare).outputs == rare


SEVERAL = {
    "a module": nn.Sigmoid(),
    "a function": torch.sigmoid,
    "torch.special's": torch.special.expit,
    "a method": lambda z: z.sigmoid(),
    "in place": lambda z: z.sigmoid_(),
    "inside a module": Sigmoids(),
    "in a sequence": nn.Sequential(nn.Identity(), nn.Sigmoid(), nn.Flatten()),
}


@pytest.mark.parametrize("end", SEVERAL.values(), ids=SEVERAL)
def test_a_sigmoid_at_the_end_tells_labels_and_is_taken_off(end):
    model = network(5, end)
    split = bridges.split(model, "body.body", preprocess=EIGHT)
    assert split.outputs == fj.MultiLabel()
    assert split.head.affine
    logits = np.asarray(split.head(split.features(IMAGES)))
    np.testing.assert_allclose(logits, answers(model.body), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(scipy.special.expit(logits), answers(model), rtol=1e-10)
    (note,) = split.notes
    assert note.startswith("Ending ends in a sigmoid, so that its 5 outputs are taken for labels")
    asked = bridges.split(model, "body.body", preprocess=EIGHT, multi_label=True)
    assert (asked.notes, asked.outputs) == ((), fj.MultiLabel())
    # The network itself is as it was.
    assert answers(model).max() < 1


def test_a_sigmoid_is_found_in_exported_networks_too():
    model = network(5, nn.Sigmoid(), small.OutOfSight)
    split = bridges.split(model, "body.act", preprocess=EIGHT)
    assert split.outputs == fj.MultiLabel()
    np.testing.assert_allclose(
        scipy.special.expit(np.asarray(split.head(split.features(IMAGES)))), answers(model), rtol=1e-9
    )


def test_exclusive_classes_keep_their_sigmoid():
    model = network(5, nn.Sigmoid())
    split = bridges.split(model, "body.body", preprocess=EIGHT, multi_label=False)
    assert split.outputs == fj.MultiClass()
    np.testing.assert_allclose(split.head(split.features(IMAGES)), answers(model), rtol=1e-10)
    labels = bridges.split(model, "body.body", preprocess=EIGHT)
    assert labels.fingerprint != split.fingerprint


def test_a_sigmoid_inside_the_network_is_no_ending():
    model = network(5, nn.Sequential(nn.Sigmoid(), nn.Linear(5, 4)))
    split = bridges.split(model, "body.body", preprocess=EIGHT)
    assert split.outputs == fj.MultiClass()
    np.testing.assert_allclose(split.head(split.features(IMAGES)), answers(model), rtol=1e-10)

    class Gated(nn.Module):
        def forward(self, z):
            return torch.sigmoid(z) * z

    gated = network(5, Gated())
    assert bridges.split(gated, "body.body", preprocess=EIGHT).outputs == fj.MultiClass()


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("end", [nn.Hardsigmoid(), lambda z: torch.sigmoid(z).clamp(1e-6, 1 - 1e-6)])
def test_other_probabilities_are_told(end, classes):
    (note,) = bridges.split(network(classes, end), "body.body", preprocess=EIGHT, multi_label=True).notes
    assert "gives values between 0 and 1, as probabilities are" in note


def test_softmax_is_told_as_ever():
    (note,) = bridges.split(network(5, nn.Softmax(1)), "body.body", preprocess=EIGHT).notes
    assert "sum of 1" in note
    assert bridges.split(network(5), "body", preprocess=EIGHT, multi_label=True).notes == ()


def test_layers_of_such_networks_are_listed():
    for model in (network(1), network(1, ONE["no axis"]), network(5, nn.Sigmoid())):
        listed = {place.name: place for place in bridges.layers(model, size=8)}
        assert listed[layer_of(model)].affine


def test_loaded_networks_know_what_their_logits_mean():
    loaded = bridges.load(network(1), classes=["cat"], preprocess=EIGHT)
    assert loaded.classes == ("not cat", "cat")
    assert loaded.split("body").outputs == fj.Binary()
    several = bridges.load(network(5), preprocess=EIGHT, multi_label=fj.MultiLabel(0.3))
    assert several.split("body").outputs == fj.MultiLabel(0.3)
    assert bridges.load(network(5, nn.Sigmoid()), preprocess=EIGHT).split("body.body").outputs == fj.MultiLabel()
    named = bridges.load("resnet18", weights=None, classes=["cat"])
    assert named.classes == ("not cat", "cat")
    assert named.model.fc.out_features == 1  # pyright: ignore[reportAttributeAccessIssue]
    assert bridges.load("resnet18", weights=None, classes=["cat"], multi_label=True).classes == ("cat",)
    with pytest.raises(ValueError, match="multi_label='yes' is neither True nor False"):
        bridges.split(network(5), "body", preprocess=EIGHT, multi_label="yes")  # pyright: ignore[reportArgumentType]


def test_the_imported_head_and_the_concept_module_take_one_logit():
    model = network(1, ONE["no axis"]).float()
    split = bridges.split(model, "body.body.2", preprocess=EIGHT, classes=["cat"])
    images = IMAGES.astype(np.float32)
    maps = split.features(images)
    tensor = torch.from_numpy(np.array(maps)).movedim(-1, 1)
    assert isinstance(split.head, bridges.TorchHead)
    imported = bridges.to_flax(split.head.module, tensor)
    expected = np.asarray(split.head(maps))
    np.testing.assert_allclose(imported(maps), expected, rtol=1e-4, atol=1e-5)
    # A head imported by itself gives the one logit, which its name makes two.
    whole = bridges.to_flax(network(1).float(), torch.from_numpy(images).movedim(-1, 1))
    np.testing.assert_allclose(
        fj.heads.OneLogit(whole)(jnp.asarray(images)),
        np.concatenate([np.zeros((3, 1)), whole(jnp.asarray(images))], 1),
        rtol=1e-5,
    )
    codes = bridges.ConceptModule(split, np.eye(3, maps.shape[-1], dtype=np.float32), pooled=True)
    assert codes(torch.from_numpy(images).movedim(-1, 1)).shape == (3, 3)


def test_forgetting_networks_are_cut_alike():
    stages = bridges.randomized(
        network(5, nn.Sigmoid()), "body.body", steps=1, preprocess=EIGHT, multi_label=fj.MultiLabel(0.3)
    )
    assert {stage.outputs for _, stage in stages} == {fj.MultiLabel(0.3)}
    binary = bridges.randomized(network(1), "body", steps=1, preprocess=EIGHT, classes="cat")
    assert {stage.classes for _, stage in binary} == {("not cat", "cat")}


class TwoLogits(nn.Module):
    """A network with one logit, written with two: [0, z]."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        z = self.model(x)
        return torch.cat([torch.zeros_like(z), z], dim=1)


@pytest.mark.parametrize("layer", ["body", "body.2"])
def test_a_binary_network_has_the_explanation_of_the_one_with_two_logits(layer):
    model = network(1).float()
    photographs = np.random.default_rng(3).integers(0, 255, (12, 12, 12, 3), dtype=np.uint8)
    with torch.no_grad():
        # Three quarters of the photographs are cats.
        model.fc.bias.sub_(float(np.quantile(answers(model, EIGHT(photographs)), 0.25)))
    settings = {"rank": 2, "batch": 12, "crops": fj.RandomCrops(per_image=3), "faithfulness": None, "key": 0}
    one = fj.explain(bridges.split(model, layer, preprocess=EIGHT, classes=["cat"]), photographs, **settings)
    names = ["not cat", "cat"]
    written = bridges.split(TwoLogits(model), f"model.{layer}", preprocess=EIGHT, classes=names)
    two = fj.explain(written, photographs, one.target_name, **settings)
    assert one.target_name == "cat"
    assert len(one.photographs) == len(two.photographs)
    np.testing.assert_array_equal(one.dictionary, two.dictionary)
    np.testing.assert_allclose(one.importance.sobol.total, two.importance.sobol.total, atol=1e-5)
    for name in ("kl", "l1", "agreement", "gini"):
        np.testing.assert_allclose(getattr(one.scores.own, name), getattr(two.scores.own, name), rtol=1e-4, atol=1e-7)
