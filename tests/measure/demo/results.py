"""Made-up results of the demo's evaluations, with the entries that `prior-fast bench demo` reads."""

import json
from pathlib import Path
from typing import Any

CLASSES = ("Atelectasis", "Edema")
CHECKPOINT = {"path": "run", "used": "step-00000009", "preset": "tiny", "stage": 3, "total_steps": 9}


def metric(value: float | None, chance: float | None) -> dict[str, Any]:
    return {"value": value, "chance": chance}


def results() -> dict[str, dict[str, Any]]:
    """Results in which everything is well above chance."""
    better = {"targets": 400, "true_is_better": metric(0.8, 0.5)}
    control = {"targets": 400, "true_is_better": metric(0.52, 0.5)}
    findings = {name: {"images": 50, "predicted": 40} for name in CLASSES}
    f1 = {"precision": metric(0.7, 0.25), "recall": metric(0.5, 0.2), "f1": metric(0.6, 0.22)}
    return {
        "zero-shot": {
            "protocol": {},
            "data": {"studies": 200, "selected_per_class": dict.fromkeys(CLASSES, 100)},
            "metrics": {
                "accuracy": metric(0.86, 0.5),
                "auroc": {"Atelectasis": metric(0.93, 0.5), "Edema": metric(0.99, 0.5)},
            },
            "pointing_game": {
                "overall": {
                    **{"targets": 400, "hit_rate": 0.31, "chance": 0.06},
                    "attention_inside_over_outside": 3.4,
                }
            },
        },
        "retrieval": {
            "metrics": {
                "studies": 200,
                "image_to_text": {"class_level": {"precision_at_5": metric(0.88, 0.2)}},
                "text_to_image": {"class_level": {"precision_at_5": metric(0.9, 0.2)}},
            }
        },
        "generation": {
            "metrics": {
                "reconstruction": {
                    "measured": 400,
                    "overall": {"without_finding": better, "without_others": control},
                },
                "generated_prototypes": {
                    **{"overall": f1, "findings": findings, "from_reports": {"overall": {"f1": metric(0.75, 0.2)}}},
                    "matched": {"stated": 300, **metric(0.45, 0.15)},
                },
            }
        },
        "bank": {
            "metrics": {
                "sentences_that_name_a_finding": {
                    "sentences": 900,
                    "purity": {"finding": {"value": 0.7, "k_means": 0.65, "chance": 0.36}},
                }
            }
        },
    }


def ceiling() -> dict[str, Any]:
    return {
        "kind": "ceiling",
        "metrics": {
            "accuracy": metric(0.98, 0.5),
            "auroc": {"Atelectasis": metric(0.97, 0.5), "Edema": metric(1.0, 0.5)},
            "precision_at_5": {"image_to_text": metric(0.95, 0.2), "text_to_image": metric(0.96, 0.2)},
        },
    }


def write(folder: Path, made: dict[str, dict[str, Any]]) -> Path:
    for task, report in made.items():
        (folder / task).mkdir(parents=True, exist_ok=True)
        whole = {"task": task, "checkpoint": CHECKPOINT, **report}
        (folder / task / "metrics.json").write_text(json.dumps(whole))
    return folder
