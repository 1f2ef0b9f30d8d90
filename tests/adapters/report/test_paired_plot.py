import xml.etree.ElementTree as ElementTree

from pipeline.adapters.report import paired_plot

PATIENTS = [
    {"patient": "P<1>", "candidate": 0.9, "champion": 0.8, "groups": {}},
    {"patient": "P2", "candidate": 0.25, "champion": 1.0, "groups": {}},
    {"patient": "P3", "candidate": 0.5, "champion": None, "groups": {}},
]


def test_patients_with_both_scores_are_listed_with_the_largest_fall_first():
    pairs = paired_plot.worst_falls_first(PATIENTS)
    assert [pair["patient"] for pair in pairs] == ["P2", "P<1>"]
    assert pairs[0]["difference"] == -0.75


def test_the_plot_has_a_ring_and_a_dot_per_patient_at_their_scores():
    plot = paired_plot.paired_svg(paired_plot.worst_falls_first(PATIENTS))
    groups = ElementTree.fromstring(plot).findall("g")
    assert len(groups) == 2
    before, after = groups[0].findall("circle")
    top, bottom = paired_plot.TOP, paired_plot.HEIGHT - paired_plot.BOTTOM
    assert float(before.get("cy")) == top  # 1.0
    assert float(after.get("cy")) == top + 0.75 * (bottom - top)
    assert groups[0].find("title").text == "P2: 1.000 to 0.250 (-0.750)"
    assert (after.get("fill"), groups[1].findall("circle")[1].get("fill")) == (
        "var(--bad)", "var(--good)",
    )  # fmt: skip
