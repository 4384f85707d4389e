"""Every method behind one interface: what all promise, and what each is, against independent witnesses."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import sklearn.cluster
import sklearn.decomposition
import sklearn.exceptions
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax import methods
from face_jax.activations import Collected
from face_jax.heads import Affine
from face_jax.methods.decompositions import without_outliers
from face_jax.methods.weighing import ByVectors

KEY = jax.random.key(0)
RANK, CHANNELS = 3, 8
RANDOM = np.random.default_rng(0)
PLANTED = RANDOM.gamma(0.4, 1, (40, RANK)) @ RANDOM.gamma(0.4, 1, (RANK, CHANNELS))
ROWS = PLANTED + 0.01 * RANDOM.random(PLANTED.shape)
MAPS = ROWS.reshape(10, 2, 2, CHANNELS)
HEAD = Affine(jnp.asarray(RANDOM.normal(size=(CHANNELS, 4))), jnp.asarray(RANDOM.normal(size=4)))
SEEN = Collected(MAPS, np.asarray(HEAD(jnp.asarray(MAPS))))
SHORT = methods.SparseAutoencoder(steps=300, batch=32)
EVERY = [
    methods.NMF(),
    methods.NMF(solver=fj.SemiNMF(), name="semi-NMF"),
    methods.SparseCoding(),
    methods.FACE(1.0, head=HEAD),
    methods.CRAFT(),
    methods.ICE(),
    methods.ACE(),
    methods.PCA(),
    methods.ICA(),
    methods.KMeans(),
    methods.RobustPCA(),
    SHORT,
    *methods.CONTROLS,
]


@pytest.mark.parametrize("method", EVERY, ids=lambda method: method.name)
def test_every_method_gives_a_bank_that_encodes_and_decodes(method):
    assert isinstance(method, methods.Method)
    bank = method.fit(MAPS, RANK, KEY)
    assert bank.name == method.name
    assert bank.dictionary.shape == (RANK, CHANNELS)
    # Codes by the objective are about pictures, which rows by themselves aren't; they have a test of their own.
    for rule in [None, None if isinstance(bank.inference, methods.ByObjective) else bank.inference]:
        codes = bank.encode(MAPS, rule)
        assert codes.shape == (10, 2, 2, RANK)
        assert bank.signed_codes or (codes >= 0).all()
        assert bank.decode(codes).shape == MAPS.shape
        np.testing.assert_allclose(codes.reshape(40, RANK), bank.encode(ROWS, rule), atol=1e-9)
    np.testing.assert_array_equal(bank.dictionary, method.fit(MAPS, RANK, KEY).dictionary)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("method", EVERY, ids=lambda method: method.name)
def test_no_method_takes_what_it_cannot_fit(method):
    with pytest.raises(ValueError, match="NaN"):
        method.fit(np.full((4, CHANNELS), np.nan), 2, KEY)
    with pytest.raises(ValueError, match="rank"):
        method.fit(ROWS, 0, KEY)
    with pytest.raises(ValueError, match="have shape"):
        method.fit(np.ones(CHANNELS), 2, KEY)


@pytest.mark.parametrize("method", [methods.PCA(), methods.ICA(), methods.RobustPCA(), methods.KMeans(), SHORT])
def test_more_concepts_than_there_are_rows_are_refused(method):
    with pytest.raises(ValueError, match=r"rank=6 is more than .* in 5 rows of 8 channels; give at most 5"):
        method.fit(ROWS[:5], 6, KEY)


@pytest.mark.parametrize("method", [methods.CRAFT(), methods.ICE(), methods.NMF(solver=fj.ADMM())])
def test_non_negative_methods_refuse_negative_activations(method):
    with pytest.raises(ValueError, match="below zero"):
        method.fit(ROWS - 1, RANK, KEY)
    assert (methods.NMF().fit(ROWS - 1, RANK, KEY).dictionary < 0).any()
    assert (methods.RandomDirections().fit(ROWS - 1, RANK, KEY).dictionary < 0).any()


def test_codes_are_least_squares_non_negative_unless_codes_have_signs():
    dictionary, offset = np.random.default_rng(1).normal(size=(2, RANK, CHANNELS))[:, :RANK]
    bank = methods.Bank(dictionary, offset=offset[0])
    expected = [scipy.optimize.nnls(dictionary.T, row - offset[0])[0] for row in ROWS]
    np.testing.assert_allclose(bank.encode(ROWS), expected, atol=1e-10)
    signed = dataclasses.replace(bank, signed_codes=True)
    least = np.linalg.lstsq(dictionary.T, (ROWS - offset[0]).T)[0].T
    np.testing.assert_allclose(signed.encode(ROWS), least, atol=1e-10)
    np.testing.assert_allclose(bank.encode(ROWS, methods.LeastSquares()), least, atol=1e-10)
    np.testing.assert_allclose(bank.decode(least), least @ dictionary + offset[0])


def test_the_projection_is_the_published_accuracys_rule():
    """`A W Wᵀ`, W being as long as it is."""
    dictionary = 2 * np.random.default_rng(1).random((RANK, CHANNELS))
    bank = methods.Bank(dictionary)
    found = bank.decode(bank.encode(ROWS, methods.Projection()))
    np.testing.assert_allclose(found, ROWS @ dictionary.T @ dictionary)


def test_the_nearest_concept_is_by_distance():
    bank = methods.Bank(ROWS[:RANK])
    codes = bank.encode(ROWS, methods.NearestConcept())
    distances = np.linalg.norm(ROWS[:, None] - ROWS[None, :RANK], axis=2)
    np.testing.assert_array_equal(codes.argmax(1), distances.argmin(1))
    np.testing.assert_array_equal(codes.sum(1), 1)
    np.testing.assert_array_equal(bank.decode(codes)[:RANK], ROWS[:RANK])


@pytest.mark.parametrize("maps", [MAPS, MAPS.mean((1, 2), keepdims=True)], ids=["maps", "averages"])
def test_codes_by_the_objective_heed_predictions_of_whole_pictures(maps):
    bank = methods.NMF().fit(MAPS, 2, KEY)
    term = fj.Faithfulness(HEAD, weights=jnp.ones(3), grid=(1, 3))
    objective = fj.SquaredError(row_weights=jnp.ones(7)) + 5.0 * term
    found = bank.encode(maps, methods.ByObjective(objective))
    own = fj.SquaredError() + 5.0 * fj.Faithfulness(HEAD, grid=maps.shape[1:3])
    expected = fj.encode(jnp.asarray(maps.reshape(-1, CHANNELS)), jnp.asarray(bank.dictionary), objective=own)
    np.testing.assert_allclose(found.reshape(-1, 2), expected, atol=1e-8)
    assert np.abs(found - bank.encode(maps)).max() > 1e-3
    other = bank.encode(maps, methods.ByObjective(objective), head=Affine(-HEAD.kernel, HEAD.bias))
    assert np.abs(found - other).max() > 1e-3


def test_nmf_is_the_factorization():
    averages = MAPS.mean((1, 2))
    for method, rows in ((methods.NMF(), averages), (methods.NMF(places=True), ROWS)):
        expected = fj.factorize(jnp.asarray(rows), RANK, start=fj.NNDSVD(), key=KEY).dictionary
        np.testing.assert_allclose(method.fit(MAPS, RANK, KEY).dictionary, expected, atol=1e-12)


def test_sparse_coding_has_few_codes_and_is_explains_default_for_concepts_of_either_sign():
    signed = MAPS - MAPS.mean()
    found = methods.SparseCoding().fit(signed, RANK, KEY)
    assert (found.dictionary < 0).any()
    assert found.name == "sparse coding"
    assert methods.SparseCoding().crops is False
    rows = jnp.asarray(signed.reshape(-1, CHANNELS))
    size = float(jnp.sqrt(jnp.mean(jnp.sum(rows**2, axis=1))))
    objective = fj.SquaredError(l1_codes=0.02 * size, l2_dictionary=0.02 * size**2 * len(rows) / RANK)
    expected = fj.factorize(rows, RANK, objective=objective, solver=fj.SemiNMF(), start=fj.NNDSVD(), key=KEY)
    np.testing.assert_allclose(np.abs(np.sum(found.dictionary * expected.dictionary, 1)), 1, atol=1e-4)
    dense = methods.NMF(places=True).fit(signed, RANK, KEY)
    share = [np.mean(bank.encode(signed) > 0) for bank in (found, dense)]
    assert share[0] <= share[1]


@pytest.mark.parametrize(
    "method", [methods.NMF(), methods.SparseCoding(), methods.CRAFT(), methods.ICE()], ids=lambda method: method.name
)
def test_random_starts_find_other_concepts(method):
    first, second = (method.started_at_random().fit(MAPS, RANK, jax.random.key(seed)).dictionary for seed in (0, 1))
    usual = [method.fit(MAPS, RANK, jax.random.key(seed)).dictionary for seed in (0, 1)]
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(*usual, atol=1e-5)


def test_craft_and_ice_are_scikit_learns_factorization_of_averages_and_places():
    for method, rows in ((methods.CRAFT(), MAPS.mean((1, 2))), (methods.ICE(), ROWS)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
            witness = sklearn.decomposition.NMF(RANK, random_state=0).fit(rows)
        found = method.fit(MAPS, RANK, KEY)
        error = ((rows - found.decode(found.encode(rows))) ** 2).sum()
        assert error <= 1.02 * witness.reconstruction_err_**2
    assert methods.ICE().crops is False


def test_pca_and_robust_pca_rebuild_as_the_singular_vectors_do():
    mean = ROWS.mean(0)
    right = np.linalg.svd(ROWS - mean, full_matrices=False)[2][:2]
    best = mean + (ROWS - mean) @ right.T @ right
    found = methods.PCA(places=True).fit(MAPS, 2, KEY)
    np.testing.assert_allclose(found.decode(found.encode(ROWS)), best, atol=1e-9)
    # With a large weight nothing is an outlier, and what is left is all of the rows.
    plain = methods.RobustPCA(places=True, weight=100.0).fit(MAPS, 2, KEY)
    np.testing.assert_allclose(plain.decode(plain.encode(ROWS)), best, atol=1e-5)


def test_robust_pca_recovers_a_planted_low_rank_part_under_gross_errors():
    random = np.random.default_rng(2)
    low = random.normal(size=(60, 2)) @ random.normal(size=(2, 50))
    sparse = np.where(random.random(low.shape) < 0.05, 20 * random.normal(size=low.shape), 0)
    found = without_outliers(low + sparse, None, 1e-8, 300)
    np.testing.assert_allclose(found[0], low, atol=1e-4)
    np.testing.assert_allclose(found[1], sparse, atol=1e-4)


def test_ica_separates_what_is_independent():
    random = np.random.default_rng(3)
    sources = random.uniform(-1, 1, (2000, 2)) * np.asarray([1.0, 3.0])
    mixing = random.normal(size=(2, 6))
    found = methods.ICA().fit(sources @ mixing + 5, 2, KEY)
    assert fj.metrics.stability([found.dictionary, mixing], either_sign=True).mean > 0.99
    # A permutation of independent sources; PCA's components are none.
    assert found.offset is not None
    np.testing.assert_allclose(found.offset, 5, atol=0.3)


def test_k_means_has_the_error_of_scikit_learns():
    witness = sklearn.cluster.KMeans(RANK, n_init=10, random_state=1).fit(ROWS)
    found = methods.KMeans(places=True).fit(MAPS, RANK, KEY)
    rebuilt = found.decode(found.encode(ROWS, found.inference))
    assert ((ROWS - rebuilt) ** 2).sum() <= 1.05 * witness.inertia_


def test_an_autoencoder_learns_keeps_its_largest_codes_and_is_of_any_unit():
    bank = methods.SparseAutoencoder(top=2, steps=600, batch=40, places=True).fit(MAPS, RANK, KEY)
    codes = bank.encode(ROWS, bank.inference)
    assert ((codes > 0).sum(1) <= 2).all()
    variance = ((ROWS - ROWS.mean(0)) ** 2).sum()
    assert ((ROWS - bank.decode(codes)) ** 2).sum() < 0.5 * variance
    np.testing.assert_allclose(np.linalg.norm(bank.dictionary, axis=1), 1)
    large = methods.SparseAutoencoder(top=2, steps=600, batch=40, places=True).fit(1024 * MAPS, RANK, KEY)
    np.testing.assert_allclose(large.dictionary, bank.dictionary, atol=1e-6)
    np.testing.assert_allclose(large.encode(1024 * ROWS, large.inference), 1024 * codes, rtol=1e-5, atol=1e-5)


def test_a_penalty_makes_an_autoencoder_sparser():
    weak, strong = (
        methods.SparseAutoencoder(penalty=penalty, steps=600, batch=40, places=True).fit(MAPS, RANK, KEY)
        for penalty in (0.0, 0.5)
    )
    shares = [(bank.encode(ROWS, bank.inference)).sum() for bank in (weak, strong)]
    assert shares[1] < 0.7 * shares[0]
    with pytest.raises(ValueError, match="give one of them"):
        methods.SparseAutoencoder(top=2, penalty=0.1)


def test_face_is_the_faithful_factorization_and_published_it_is_adams():
    averages = jnp.asarray(MAPS.mean((1, 2)))
    objective = fj.SquaredError() + 2.0 * fj.Faithfulness(HEAD)
    solver = fj.ADMM(max_steps=40)
    expected = fj.factorize(averages, 2, objective=objective, solver=solver, start=fj.NNDSVD(), key=KEY).dictionary
    bank = methods.FACE(2.0, head=HEAD, solver=solver).fit(MAPS, 2, KEY)
    np.testing.assert_allclose(bank.dictionary, expected, atol=1e-7)
    assert isinstance(bank.inference, methods.ByObjective)
    published = methods.FACE.published(1e-5, head=HEAD, solver=fj.PaperAdam(max_steps=5)).fit(MAPS, 2, KEY)
    term = fj.Faithfulness(HEAD, unit=fj.InMeans())
    adam = fj.factorize(
        averages, 2, objective=fj.SquaredError() + 1e-5 * term, solver=fj.PaperAdam(max_steps=5), start=fj.NNDSVD(),
        key=KEY,
    )  # fmt: skip
    np.testing.assert_allclose(published.dictionary, adam.dictionary * adam.scale[:, None], rtol=1e-6, atol=1e-9)
    assert published.inference == methods.LeastSquares()
    # Pictures that are fitted themselves count once.
    given = methods.FACE(2.0, head=HEAD, solver=solver, pictures=SEEN).fit(MAPS, 2, KEY)
    np.testing.assert_allclose(given.dictionary, bank.dictionary, atol=1e-7)
    with pytest.raises(ValueError, match="head=None"):
        methods.FACE(1.0).fit(MAPS, 2, KEY)
    with pytest.raises(ValueError, match="faithfulness"):
        methods.FACE("much")  # pyright: ignore[reportArgumentType]


def test_face_chooses_its_weight_on_pictures_that_no_crop_is_of():
    crops, crop_of = np.repeat(MAPS, 2, axis=0), np.repeat(np.arange(10), 2)
    method = methods.FACE(head=HEAD, pictures=SEEN, crop_of=crop_of, solver=fj.ADMM(max_steps=10))
    bank = method.fit(crops, 2, KEY)
    assert bank.dictionary.shape == (2, CHANNELS)
    with pytest.raises(ValueError, match="there is only one"):
        dataclasses.replace(method, pictures=SEEN[:1]).fit(crops, 2, KEY)


def test_ices_importance_is_the_central_difference_along_each_concept():
    codes, dictionary = np.abs(np.random.default_rng(5).normal(size=(10, 2, 2, RANK))), ROWS[:RANK]
    found = methods.ByDirectionalDerivative(images=4)(HEAD, MAPS, codes, dictionary, 2, KEY)
    step = 1e-4
    differences = [
        (HEAD(jnp.asarray(MAPS[:4] + step * concept)) - HEAD(jnp.asarray(MAPS[:4] - step * concept)))[:, 2].mean()
        for concept in dictionary
    ]
    np.testing.assert_allclose(found, np.abs(np.asarray(differences)) / (2 * step), rtol=1e-7)
    signed = methods.ByDirectionalDerivative(images=4, sizes=False)(HEAD, MAPS, codes, dictionary, 2, KEY)
    np.testing.assert_allclose(signed, np.asarray(differences) / (2 * step), rtol=1e-7)


def test_halton_points_give_what_jansens_formula_gives():
    from scipy.stats import qmc

    codes, dictionary = np.abs(np.random.default_rng(5).normal(size=(2, 1, 1, 2))), ROWS[:2]
    found = methods.ByHaltonSobol(16)(HEAD, MAPS[:2, :1, :1], codes, dictionary, 1, KEY)
    points = qmc.Halton(4, scramble=False).random(16)
    column = dictionary @ np.asarray(HEAD.kernel)[:, 1]
    expected = []
    for image in codes[:, 0, 0]:
        base = points[:, :2] @ (image * column)
        mixed = [points[:, [2, 1]] @ (image * column), points[:, [0, 3]] @ (image * column)]
        expected.append([((base - each) ** 2).sum() / (2 * 16 * base.var(ddof=1)) for each in mixed])
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-6)


def test_aces_vectors_point_to_their_clusters_and_scores_are_shares_of_pictures():
    random = np.random.default_rng(0)
    centres = 5 * np.eye(RANK, CHANNELS)
    rows = np.repeat(centres, 20, axis=0) + 0.1 * random.random((60, CHANNELS))
    bank = methods.ACE().fit(rows, RANK, KEY)
    assert isinstance(bank.importance, ByVectors)
    cosines = fj.metrics.unit_length(bank.importance.vectors) @ fj.metrics.unit_length(bank.dictionary).T
    assert (cosines.argmax(1) == np.arange(RANK)).all()
    codes = bank.encode(MAPS, bank.inference)
    found = bank.importance(HEAD, MAPS, codes, bank.dictionary, 1, KEY)
    slopes = np.asarray(HEAD.kernel)[:, 1] @ bank.importance.vectors.T
    np.testing.assert_array_equal(found, (slopes > 0).astype(float))


def test_superpixels_are_parts_of_their_photographs_alone_on_grey():
    model, photographs = colour_model(), pictures(2, 0)
    found, photograph = methods.superpixels(model, photographs, segments=(2, 6))
    assert found.maps.shape[1:] == (1, 1, 14)
    assert set(photograph) == {0, 1}
    again = methods.superpixels(model, photographs, segments=(2, 6))[0]
    np.testing.assert_array_equal(found.maps, again.maps)
    bank = methods.ACE(members=5).fit(found.maps, 2, KEY)
    assert bank.dictionary.shape == (2, 14)
    with pytest.raises(ValueError, match="segments=0"):
        methods.superpixels(model, photographs, segments=(0,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dictionary": np.ones(3)}, "dictionary has shape"),
        ({"dictionary": np.full((2, 3), np.inf)}, "NaN or infinite"),
        ({"offset": np.ones(2)}, "offset has 2 numbers for 3 channels"),
        ({"name": 3}, "name=3"),
        ({"signed_codes": 1}, "signed_codes=1"),
        ({"inference": "nnls"}, "inference='nnls'"),
        ({"inference": methods.LeastSquares}, "inference="),
        ({"importance": methods.BySobol}, "importance="),
    ],
)
def test_banks_are_checked_when_they_are_made(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        methods.Bank(**({"dictionary": np.ones((2, 3))} | change))


def test_missing_packages_are_named_with_their_extra(monkeypatch):
    import importlib

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"PCA needs scikit-learn; .*pip install '\.\[methods\]'"):
        methods.PCA().fit(ROWS, 2, KEY)
    with pytest.raises(ImportError, match="ACE needs scikit-image"):
        methods.superpixels(colour_model(), pictures(1, 0))
