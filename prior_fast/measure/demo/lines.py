"""The five lines of the demo and their figures, one function for each line."""

from dataclasses import dataclass
from typing import Any

from prior_fast.measure.demo.figure import DEVIATIONS, Figure, noise_of_auroc, noise_of_f1, noise_of_share, shown

Report = dict[str, Any]
LABELS, FEWER, K_MEANS, REPORTS = "with labels", "without as many other sentences", "k-means", "from the report itself"
AT = "precision_at_5"


@dataclass(frozen=True)
class Line:
    """A line, without what is open, and its figures."""

    text: str
    figures: tuple[Figure, ...] = ()

    @property
    def open(self) -> list[str]:
        """What is no better than chance or its control: a sentence for each problem."""
        names: dict[str, list[str]] = {}
        for figure in self.figures:
            if figure.problem:
                names.setdefault(figure.problem, []).append(figure.name)
        return [f"{' and '.join(each)} {'are' if len(each) > 1 else 'is'} {text}" for text, each in names.items()]

    def __str__(self) -> str:
        return f"{self.text}; open: {'; '.join(self.open)}" if self.open else self.text


def zero_shot_line(zero_shot: Report, ceiling: Report | None) -> Line:
    """Accuracy, and the least and greatest AUROC of a class."""
    metrics, counts = zero_shot["metrics"], zero_shot["data"]["selected_per_class"]
    count = sum(counts.values())
    best = ceiling["metrics"] if ceiling else None
    accuracy = Figure(
        *("accuracy", "zero-shot accuracy"),
        *_value(metrics["accuracy"]),
        noise_of_share(metrics["accuracy"]["chance"], count),
        {LABELS: best["accuracy"]["value"]} if best else {},
    )
    aurocs = tuple(
        Figure(
            *(f"auroc {name}", f"AUROC of {name}"),
            *_value(found),
            noise_of_auroc(counts[name], count - counts[name]),
            {LABELS: best["auroc"].get(name, {}).get("value")} if best else {},
        )
        for name, found in metrics["auroc"].items()
    )
    values = [figure.value for figure in aurocs]
    with_labels = f"; {LABELS} {_range([figure.beside[LABELS] for figure in aurocs])}" if best else ""
    text = (
        f"zero-shot: {shown(accuracy.value)} of the findings named {accuracy.comparisons()}; AUROC {_range(values)} "
        f"(chance 0.50{with_labels})"
    )
    return Line(text, (accuracy, *aurocs))


def retrieval_line(retrieval: Report, ceiling: Report | None) -> Line:
    """Precision at 5 in both directions."""
    metrics, figures = retrieval["metrics"], []
    for direction in ("image_to_text", "text_to_image"):
        found = metrics[direction]["class_level"][AT]
        figures.append(
            Figure(
                *(direction, f"precision at 5 from {direction.replace('_', ' ')}"),
                *_value(found),
                noise_of_share(found["chance"], metrics.get("studies") or metrics["images"]),
                {LABELS: ceiling["metrics"][AT][direction]["value"]} if ceiling else {},
            )
        )
    to_text, to_image = figures
    text = (
        f"retrieval: {shown(to_text.value)} of an image's first five reports share its finding "
        f"{to_text.comparisons()}, {shown(to_image.value)} of a report's first five images {to_image.comparisons()}"
    )
    return Line(text, (to_text, to_image))


def attention_line(zero_shot: Report) -> Line:
    """The pointing game, and the weights inside a finding over those outside."""
    if "pointing_game" not in zero_shot:
        reason = zero_shot["protocol"].get("pointing_game", "the dataset has no annotations").removeprefix("left out: ")
        return Line(f"attention: not measured: {reason}")
    found = zero_shot["pointing_game"]["overall"]
    hits = Figure(
        *("hit_rate", "pointing game"),
        found["hit_rate"],
        found["chance"],
        noise_of_share(found["chance"], found["targets"]),
    )
    # The deviation by chance is not known. A ratio that is shown as 1.00 is at least no better.
    ratio = Figure(
        *("inside_over_outside", "ratio of weights inside to outside"),
        *(found["attention_inside_over_outside"], 1.0, 0.005 / DEVIATIONS),
    )
    text = (
        f"attention: the maximum lies on the finding in {shown(hits.value)} of the images {hits.comparisons()}; "
        f"weights inside are {shown(ratio.value)} times those outside {ratio.comparisons()}"
    )
    return Line(text, (hits, ratio))


def reconstruction_line(generation: Report) -> Line:
    """How often the true report has the lower error inside the finding."""
    summary = generation["metrics"]["reconstruction"]
    if not summary["measured"]:
        return Line(f"reconstruction: not measured: {summary['note']}")
    own, control = summary["overall"]["without_finding"], summary["overall"]["without_others"]
    found = own["true_is_better"]
    figure = Figure(
        *("reconstruction", "reconstruction"),
        *_value(found),
        noise_of_share(found["chance"], own["targets"]),
        {FEWER: control["true_is_better"]["value"]},
        FEWER,
    )
    text = (
        f"reconstruction: {shown(figure.value)} of the findings are closer to the image with the report's sentences on "
        f"the finding than without {figure.comparisons()}"
    )
    return Line(text, (figure,))


def prototypes_line(bank: Report, generation: Report) -> Line:
    """The purity of the prototypes, and the findings that the generated ones state."""
    naming = bank["metrics"]["sentences_that_name_a_finding"]
    purity = naming["purity"]["finding"]
    parts, figures = [], []
    if purity["value"] is None:
        parts.append(f"purity not measured: {purity['note']}")
    else:
        figures.append(
            Figure(
                *("purity", "purity of prototypes"),
                purity["value"],
                purity["chance"],
                noise_of_share(purity["chance"], naming["sentences"]),
                {K_MEANS: purity["k_means"]},
            )
        )
        parts.append(
            f"{shown(purity['value'])} of the sentences name the finding that is most frequent in their prototype "
            f"{figures[0].comparisons()}"
        )
    generated = generation["metrics"]["generated_prototypes"]
    if "overall" not in generated:
        parts.append(f"generated findings not measured: {generated['note'].removeprefix('left out: ')}")
    else:
        f1, matched = _generated(generated), _matched(generated["matched"])
        figures += [f1, matched]
        parts.append(f"generated findings: F1 {shown(f1.value)} {f1.comparisons()}")
        parts.append(f"{shown(matched.value)} of the sentences' findings predicted for them {matched.comparisons()}")
    return Line(f"prototypes: {'; '.join(parts)}", tuple(figures))


def _generated(generated: Report) -> Figure:
    f1, precision = generated["overall"]["f1"], generated["overall"]["precision"]
    each = generated["findings"].values()
    predicted, true = (sum(found[key] for found in each) for key in ("predicted", "images"))
    return Figure(
        *("f1", "F1 of generated findings"),
        f1["value"],
        f1["chance"] or 0.0,
        noise_of_f1(precision["chance"] or 0.0, predicted, true),
        {REPORTS: generated["from_reports"]["overall"]["f1"]["value"]},
    )


def _matched(found: Report) -> Figure:
    chance = found["chance"] or 0.0
    return Figure(
        *("matched", "share of findings predicted for their sentences"),
        *(found["value"], chance, noise_of_share(chance, found["stated"])),
    )


def _value(metric: Report) -> tuple[float | None, float]:
    return metric["value"], metric["chance"]


def _range(values: list[float | None]) -> str:
    there = [value for value in values if value is not None]
    return f"{shown(min(there))} to {shown(max(there))}" if there else "-"
