"""Scores of answers, from files as people hand them in."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from face_jax.study import AnswerError, Screening, read_answers, score, write_page
from face_jax.study.page import answer_key
from face_jax.study.trials import Option, Trial


def make_key(trials: list[Trial], study: str = "s1") -> dict:
    return json.loads(json.dumps(answer_key(study, "A study", trials)))


def intruders(count: int, condition: str = "concept", start: int = 0) -> list[Trial]:
    options = tuple(Option((), str(number)) for number in range(5))
    return [
        Trial(f"{condition}{n}", "intruder", condition, "?", (), options, correct=n % 5)
        for n in range(start, start + count)
    ]


def utility(condition: str, sessions: int = 3, tests: int = 4, catches: int = 1) -> list[Trial]:
    options = (Option((), "fox"), Option((), "wolf"))
    made = []
    for session in range(sessions):
        for number in range(tests + catches):
            made.append(
                Trial(
                    f"{condition}-{session}-{number}", "utility", condition, "?", (), options, correct=number % 2,
                    session=session, catch=number >= tests, about={"round": session},
                )
            )  # fmt: skip
    return made


def write(folder, person: str, choices: dict[str, int], study: str = "s1", seconds: float = 2.0, kind: str = "json"):
    rows = [{"trial": name, "choice": choice, "seconds": seconds} for name, choice in choices.items()]
    file = folder / f"{person}.{kind}"
    if kind == "json":
        file.write_text(json.dumps({"format": 1, "study": study, "participant": person, "answers": rows}))
    else:
        lines = [f"{study},{person},{row['trial']},{row['choice']},{row['seconds']}" for row in rows]
        file.write_text("\r\n".join(["study,participant,trial,choice,seconds", *lines]))
    return file


def answered(trials: list[Trial], right: int) -> dict[str, int]:
    """The first so many correct, the others wrong."""
    return {
        trial.name: trial.correct if number < right else (trial.correct + 1) % len(trial.options)
        for number, trial in enumerate(trials)
    }


def test_accuracy_has_the_binomial_interval_and_test(tmp_path):
    trials = intruders(15)
    write(tmp_path, "ada", answered(trials, 12))
    write(tmp_path, "bob", answered(trials, 9), kind="csv")
    (one,) = score(tmp_path, make_key(trials)).accuracies
    assert (one.correct, one.total, one.participants) == (21, 30, 2)
    assert one.accuracy == 0.7
    # Wilson's interval in closed form.
    z = stats.norm.ppf(0.975)
    centre = (0.7 + z**2 / 60) / (1 + z**2 / 30)
    half = z / (1 + z**2 / 30) * np.sqrt(0.7 * 0.3 / 30 + z**2 / 3600)
    np.testing.assert_allclose([one.low, one.high], [centre - half, centre + half], rtol=1e-12)
    np.testing.assert_allclose(one.p_value, stats.binom.sf(20, 30, 0.2), rtol=1e-10)
    assert one.chance == 0.2
    assert one.odds == pytest.approx(21 / 9)


def test_conditions_are_compared(tmp_path):
    trials = [*intruders(15), *intruders(15, "sub-concept")]
    choices = answered(trials[:15], 6) | answered(trials[15:], 14)
    write(tmp_path, "ada", choices)
    result = score(tmp_path, make_key(trials))
    assert [one.condition for one in result.accuracies] == ["concept", "sub-concept"]
    (comparison,) = result.comparisons
    assert comparison.difference == pytest.approx(8 / 15)
    assert comparison.p_value == pytest.approx(stats.fisher_exact([[6, 9], [14, 1]]).pvalue)


def test_utility_is_the_ratio_of_mean_accuracies_over_sessions(tmp_path):
    """The paper's table 1: 82.4, 87.0, 85.1 % with concepts over 55.7, 66.2, 62.9 % without is a utility of 1.38."""
    with_concepts, without = (0.824, 0.870, 0.851), (0.557, 0.662, 0.629)
    trials = {name: utility(name, tests=1000) for name in ("explained", "baseline")}
    for name, accuracies in (("explained", with_concepts), ("baseline", without)):
        choices = {}
        for session, accuracy in enumerate(accuracies):
            own = [trial for trial in trials[name] if trial.session == session]
            choices |= answered(own, round(1000 * accuracy)) | answered([t for t in own if t.catch], 1)
        write(tmp_path, name, choices, study=name)
    keys = [make_key(own, study=name) for name, own in trials.items()]
    found = score(tmp_path, keys).utility
    assert found.explained == pytest.approx(with_concepts)
    assert found.baseline == pytest.approx(without)
    assert round(found.score, 2) == 1.38
    # One person in each group: drawing people again always draws the same.
    assert found.low == pytest.approx(found.score) == found.high


def test_utility_before_and_after_draws_people_together(tmp_path):
    trials = [*utility("baseline"), *utility("explained")]
    generator = np.random.default_rng(0)
    for person in range(12):
        good = int(generator.integers(1, 4))
        choices = {}
        for name, right in (("baseline", good), ("explained", good + 1)):
            for session in range(3):
                own = [trial for trial in trials if trial.condition == name and trial.session == session]
                choices |= answered(own, right) | answered([t for t in own if t.catch], 1)
        write(tmp_path, f"p{person}", choices)
    key = make_key(trials)
    first, again = (score(tmp_path, key, random_key=jax.random.key(1), resamples=500).utility for _ in range(2))
    assert first == again
    assert first.baseline_participants == first.explained_participants == 12
    assert 1 < first.low < first.score < first.high
    wider = score(tmp_path, key, resamples=500, confidence=0.99).utility
    assert wider.high - wider.low > first.high - first.low


def predicted(trials: list[Trial], right: dict[str, int], skip: tuple[str, int] | None = None) -> dict[str, int]:
    """In each session of each condition the first so many correct; the session skipped isn't answered."""
    choices = {}
    for condition, count in right.items():
        for session in range(3):
            own = [trial for trial in trials if trial.condition == condition and trial.session == session]
            if (condition, session) != skip:
                choices |= answered(own, count) | answered([trial for trial in own if trial.catch], 1)
    return choices


def test_a_session_without_a_condition_does_not_count(tmp_path):
    trials = [*utility("baseline"), *utility("explained")]
    key, loose = make_key(trials), Screening(unanswered=10)
    write(tmp_path, "ada", predicted(trials, {"baseline": 2, "explained": 4}, skip=("explained", 1)))
    found = score(tmp_path, key, screening=loose, resamples=50).utility
    assert found.sessions == (0, 2)
    assert found.score == found.low == found.high == 2
    assert found.baseline == (0.5, 0.5)
    assert found.notes == ("sessions [1] were answered in one condition only, and don't count",)
    only = {
        name: choice for name, choice in predicted(trials, {"baseline": 2}).items() if name.startswith("baseline-0")
    }
    only |= {name: choice for name, choice in predicted(trials, {"explained": 2}).items() if "-2-" in name}
    write(tmp_path, "ada", only)
    assert score(tmp_path, key, screening=Screening(unanswered=30), resamples=50).utility is None


def test_who_is_never_right_without_the_explanation_makes_it_infinite(tmp_path):
    trials = [*utility("baseline"), *utility("explained")]
    key = make_key(trials)
    write(tmp_path, "ada", predicted(trials, {"baseline": 0, "explained": 4}))
    every = score(tmp_path, key, resamples=50).utility
    assert every.score == every.low == every.high == np.inf
    assert "in 100.0% of the resamples nobody was right without" in every.notes[0]
    write(tmp_path, "bob", predicted(trials, {"baseline": 2, "explained": 4}))
    found = score(tmp_path, key, resamples=500).utility
    assert (found.score, found.low, found.high) == (4, 2, np.inf)
    write(tmp_path, "ada", predicted(trials, {"baseline": 0, "explained": 0}))
    (tmp_path / "bob.json").unlink()
    nothing = score(tmp_path, key, resamples=50).utility
    assert np.isnan([nothing.score, nothing.low, nothing.high]).all()


def test_both_files_of_one_participant_count_once(tmp_path):
    trials = intruders(4)
    choices = answered(trials, 3)
    write(tmp_path, "ada", choices)
    write(tmp_path, "ada", choices, kind="csv")
    (one,) = score(tmp_path, make_key(trials)).accuracies
    assert (one.correct, one.total, one.participants) == (3, 4, 1)
    write(tmp_path, "ada", answered(trials, 2), kind="csv")
    with pytest.raises(AnswerError, match="participant 'ada' answers trial concept2 a second time"):
        score(tmp_path, make_key(trials))


def test_without_a_baseline_there_is_no_utility(tmp_path):
    trials = utility("explained")
    write(tmp_path, "ada", answered(trials, len(trials)))
    assert score(tmp_path, make_key(trials)).utility is None


def test_who_does_not_pay_attention_is_left_out(tmp_path):
    trials = [*utility("baseline"), *utility("explained")]
    right = answered(trials, len(trials))
    catch = next(trial for trial in trials if trial.catch)
    write(tmp_path, "ada", right)
    write(tmp_path, "bob", right | {catch.name: 1 - catch.correct})
    write(tmp_path, "cem", {name: choice for name, choice in right.items() if name != catch.name})
    write(tmp_path, "dan", right, seconds=0.2)
    key = make_key(trials)
    result = score(tmp_path, key, screening=Screening(median_seconds=1.0))
    assert result.participants == ("ada",)
    assert result.excluded == {
        "bob": "1 catch trials wrong",
        "cem": "1 of 30 trials unanswered",
        "dan": "0.2 seconds for an answer (median)",
    }
    assert len(score(tmp_path, key, screening=Screening(failed_catches=1, unanswered=1)).participants) == 4
    with pytest.raises(AnswerError, match="nobody's answers count"):
        score(tmp_path / "bob.json", key)


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1, max_size=12).filter(lambda name: name.strip() and name.isprintable()), st.integers(0, 4))
def test_any_name_survives_both_files(tmp_path_factory, name, choice):
    import csv

    folder = tmp_path_factory.mktemp("names")
    row = {"study": "s1", "participant": name, "trial": "concept0", "choice": choice, "seconds": 1.5}
    (folder / "a.json").write_text(
        json.dumps({"format": 1, "study": "s1", "participant": name, "answers": [row]}), encoding="utf-8"
    )
    with (folder / "b.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    (first,), (second,) = read_answers(folder / "a.json"), read_answers(folder / "b.csv")
    assert (first.participant, first.choice, first.seconds) == (name, choice, 1.5)
    assert (second.participant, second.choice, second.seconds) == (name, choice, 1.5)


def test_spreadsheets_that_write_semicolons_are_read(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("study;participant;trial;choice;seconds\ns1;ada;concept0;2.0;1.5\n")
    (answer,) = read_answers(file)
    assert (answer.choice, answer.seconds) == (2, 1.5)


JSON = (
    '{"format": 1, "study": "s1", "participant": "x", "answers": [{"trial": "concept0", "choice": %s, "seconds": %s}]}'
)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "isn't JSON"),
        ("a.json", "[]", "holds no answers"),
        ("a.json", '{"format": 9, "answers": []}', "has format 9"),
        ("a.json", '{"format": 1, "study": "s1", "participant": "x", "answers": [{"trial": "concept0"}]}', "answer 1"),
        ("a.json", '{"format": 1, "study": "s1", "participant": "x", "answers": [3]}', "is 3, not an answer"),
        ("a.csv", "study,participant\ns1,x\n", "line 2: has no trial, choice, seconds"),
        ("a.csv", "study,participant,trial,choice,seconds\ns1,x,concept0,one,1\n", "could not convert"),
        ("a.csv", "study,participant,trial,choice,seconds\ns1,x,concept0,0.5,1\n", "choice='0.5'"),
        ("a.csv", "study,participant,trial,choice,seconds\ns1,x,concept0,nan,1\n", "choice='nan'"),
        ("a.csv", "study,participant,trial,choice,seconds\n", "hold no answers"),
        ("a.csv", "study,participant,trial,choice,seconds\ns2,x,concept0,0,1\n", "answers study 's2'"),
        ("a.csv", "study,participant,trial,choice,seconds\ns1,x,other,0,1\n", "trial 'other' is not in the key"),
        ("a.csv", "study,participant,trial,choice,seconds\ns1,x,concept0,5,1\n", "which has 5 options"),
        ("a.csv", "study,participant,trial,choice,seconds\ns1,x,concept0,0,1\ns1,x,concept0,1,1\n", "a second time"),
        ("a.csv", "study,participant,trial,choice,seconds\ns1,x,concept0,0,1\ns1,x,concept0,0,2\n", "after 2 s"),
        ("a.txt", "", "isn't a .json or .csv file"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", JSON % ("0", "NaN"), r"seconds is nan, not a number"),
        ("a.json", JSON % ("0", "1e400"), r"seconds is inf, not a number"),
        ("a.json", JSON % ('"0"', "1"), r"choice is '0', not a number"),
        ("a.json", JSON % ("true", "1"), r"choice is True, not a number"),
        ("a.json", JSON % ("1" * 400, "1"), r"choice is 1{57}…, not a number"),
        ("a.json", JSON % ("0", "1e9"), r"nor seconds more than 86400"),
        ("a.json", JSON.replace('"x"', "[1]") % ("0", "1"), r"participant is \[1\], not a text"),
        ("a.csv", "study,participant,trial,choice,seconds\ns1,x,concept0,0,inf\n", "nor seconds more than"),
        ("a.csv", "study,participant,trial,choice,seconds\n" + "x" * 200_000, "isn't CSV"),
    ],
)
def test_files_that_cannot_be_scored_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(AnswerError, match=message):
        score(tmp_path / name, make_key(intruders(1)))


def test_keys_that_are_none_are_named(tmp_path):
    write(tmp_path, "ada", {"concept0": 0})
    with pytest.raises(AnswerError, match="isn't a file"):
        score(tmp_path, tmp_path / "nothing.key.json")
    with pytest.raises(AnswerError, match="isn't a study's key"):
        score(tmp_path, tmp_path / "ada.json")
    with pytest.raises(AnswerError, match="key is empty"):
        score(tmp_path, [])
    with pytest.raises(ValueError, match="confidence=95"):
        score(tmp_path, make_key(intruders(1)), confidence=95.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("correct", 5), ("correct", -1), ("correct", "1"), ("options", 0), ("catch", 1), ("session", None), ("kind", 3),
     ("about", []), ("condition", {})],
)  # fmt: skip
def test_keys_that_cannot_be_are_refused(tmp_path, name, value):
    write(tmp_path, "ada", {"concept0": 0})
    key = make_key(intruders(1))
    key["trials"]["concept0"][name] = value
    with pytest.raises(AnswerError, match=rf"concept0.*{name}.*; give the"):
        score(tmp_path, key)


def test_keys_that_were_changed_are_refused(tmp_path):
    folder = tmp_path / "answers"
    folder.mkdir()
    write(folder, "ada", {"concept0": 0})
    file = write_page(tmp_path / "study.html", intruders(1)).key
    key = json.loads(file.read_text())
    write(folder, "ada", {"concept0": 0}, study=key["study"])
    assert score(folder, file).accuracies[0].correct == 1
    key["trials"]["concept0"]["correct"] = 3
    file.write_text(json.dumps(key))
    with pytest.raises(AnswerError, match="was changed after it was written"):
        score(folder, file)
