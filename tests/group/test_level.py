"""The group level from tables on disk to tables and page."""

import csv
import json

import numpy as np
import pytest

from unibrain_bids.app.cli import main
from unibrain_bids.bids.atomic import write_json, write_tsv
from unibrain_bids.errors import DatasetError, ExitCode, UsageError
from unibrain_bids.group.level import run_group
from unibrain_bids.group.options import GroupOptions


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="session")
def compared(cohort):
    raw, out = cohort
    return out, run_group(raw, out, options=GroupOptions(compare="diagnosis"))


@pytest.fixture
def edit(small):
    """Return a function that changes the rows of participants.tsv."""

    def change(function):
        path = small[0] / "participants.tsv"
        write_tsv(path, [row for row in map(function, read(path)) if row])

    return change


def test_known_regions_are_found_and_no_more_than_chance(compared):
    out, _ = compared
    rows = [r for r in read(out / "group_atlas-DK_desc-diagnosis_regions.tsv") if r["measure"] == "volume"]
    found = [k for k, row in enumerate(rows) if float(row["q"]) < 0.05]
    assert set(range(8)) <= set(found)
    assert len(found) <= 11
    assert all(float(row["effect"]) > 0 for row in rows[:8])  # patient minus control


def test_every_table_has_its_dictionary(compared):
    out, result = compared
    assert result.scans == 40
    assert not result.excluded
    tables = sorted(out.glob("group_*.tsv"))
    assert len(tables) == 1 + 1 + 2 + 2 * 3
    for table in tables:
        assert table.with_suffix(".json").is_file(), table
    rows = read(out / "group_T1w.tsv")
    described = json.loads((out / "group_T1w.json").read_text())
    assert set(rows[0]) >= set(described)
    assert rows[0]["fber"] == "n/a"


def test_mean_network_is_symmetric_and_counts_everybody(compared):
    out, _ = compared
    path = out / "group_atlas-DK_meas-kls_desc-mean_relmat.tsv"
    rows = read(path)
    names = list(rows[0])
    assert rows[3][names[10]] == rows[10][names[3]]
    assert json.loads(path.with_suffix(".json").read_text())["NumberOfParticipants"] == 40


def test_page_is_self_contained(compared):
    page = (compared[0] / "group_T1w.html").read_text()
    assert 'src="http' not in page and "url(http" not in page and "@import" not in page
    assert "default-src &#39;none&#39;" in page
    assert "Comparison by diagnosis" in page


def test_participants_with_several_scans_count_once(small):
    raw, out = small
    run_group(raw, out, options=GroupOptions(compare="diagnosis"))
    assert len(read(out / "group_T1w.tsv")) == 24
    described = json.loads((out / "group_atlas-DK_desc-diagnosis_regions.json").read_text())
    assert described["NumberByClass"] == {"control": 6, "patient": 6}


def test_number_is_compared_by_correlation(small):
    raw, out = small
    run_group(raw, out, options=GroupOptions(compare="age", covariates=()))
    rows = [row for row in read(out / "group_atlas-DK_desc-age_regions.tsv") if row["measure"] == "volume"]
    assert "mean_control" not in rows[0]
    age = {row["participant_id"]: float(row["age"]) for row in read(raw / "participants.tsv")}
    scans = read(out / "group_atlas-DK_desc-volume_morph.tsv")
    for row in rows[:3]:
        region = row["region"]
        volumes = [[float(scan[region]) for scan in scans if scan["participant_id"] == name] for name in age]
        correlation = np.corrcoef(list(age.values()), np.mean(volumes, axis=1))[0, 1]
        assert float(row["effect"]) == pytest.approx(correlation, abs=1e-3)


def test_damaged_tables_are_reported_not_dropped(small):
    raw, out = small
    (out / "sub-0001/ses-a/anat/sub-0001_ses-a_atlas-DK_morph.tsv").write_text("index\tname\n1\tx\n")
    (out / "sub-0002/ses-b/anat/sub-0002_ses-b_desc-qc_T1w.json").write_text("[")
    result = run_group(raw, out, options=GroupOptions())
    assert set(result.excluded) == {"sub-0001_ses-a", "sub-0002_ses-b"}
    assert "only its quality measures" in result.excluded["sub-0001_ses-a"]
    assert result.scans == 23
    assert "sub-0002_ses-b" in (out / "group_T1w.html").read_text()


def test_participants_without_value_or_covariate_are_reported(small, edit):
    raw, out = small
    edit(lambda row: {**row, "diagnosis": "n/a"} if row["participant_id"] == "sub-0003" else row)
    edit(lambda row: {**row, "age": "n/a"} if row["participant_id"] == "sub-0004" else row)
    edit(lambda row: None if row["participant_id"] == "sub-0005" else row)
    result = run_group(raw, out, options=GroupOptions(compare="diagnosis"))
    assert set(result.excluded) == {"sub-0003", "sub-0004", "sub-0005"}
    assert result.excluded["sub-0003"] == "no value of diagnosis"
    assert "age" in result.excluded["sub-0004"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (GroupOptions(compare="height"), "Its columns: age, sex, site, diagnosis"),
        (GroupOptions(compare="diagnosis", classes=("control", "tumour")), "tumour"),
        (GroupOptions(compare="diagnosis", covariates=("IQ",)), "IQ"),
        (GroupOptions(compare="diagnosis", site="hospital"), "hospital"),
        (GroupOptions(regress="diagnosis"), "not all values"),
        (GroupOptions(classify="age"), "--classes"),
    ],
)
def test_wrong_columns_are_named(small, options, message):
    with pytest.raises(UsageError, match=message):
        run_group(*small, options=options)


def test_one_class_cannot_be_compared_or_learned(small, edit):
    edit(lambda row: {**row, "diagnosis": "patient"})
    for options in (GroupOptions(compare="diagnosis"), GroupOptions(classify="diagnosis")):
        with pytest.raises(UsageError, match=r"patient \(12\)"):
            run_group(*small, options=options)


def test_fewer_members_than_folds(small, edit):
    edit(lambda row: {**row, "diagnosis": "patient" if row["participant_id"] < "sub-0003" else "control"})
    with pytest.raises(UsageError, match=r"Only 3 participant\(s\) of class patient"):
        run_group(*small, options=GroupOptions(classify="diagnosis"))


def test_mixed_weights_cannot_be_learned_from(small):
    raw, out = small
    write_json(out / "logs/complete/sub-0001_ses-a.json", {"version": "0.1", "fingerprint": {"weights": "f" * 64}})
    with pytest.raises(UsageError, match="different or unknown weights"):
        run_group(raw, out, options=GroupOptions(classify="diagnosis"))


def test_participant_listed_twice(small):
    raw, out = small
    rows = read(raw / "participants.tsv")
    write_tsv(raw / "participants.tsv", [*rows, rows[0]])
    with pytest.raises(DatasetError, match="sub-0000"):
        run_group(raw, out, options=GroupOptions(compare="diagnosis"))


def test_without_derivatives_the_participant_level_is_asked_for(tmp_path):
    with pytest.raises(DatasetError, match="Run the participant level first"):
        run_group(tmp_path, tmp_path / "nowhere", options=GroupOptions())


def test_group_options_belong_to_the_group_level(capsys):
    assert main(["/data/raw", "/data/out", "participant", "--classify", "sex"]) == ExitCode.USAGE
    assert "only at group level" in capsys.readouterr().err
