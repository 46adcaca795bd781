"""OpenI, the Indiana University chest X-rays (IU X-Ray): XML reports (NLMCXR_reports) and PNG or DICOM images."""

import argparse
from pathlib import Path
from xml.etree import ElementTree

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import read_table
from prior_fast.prepare.paths import is_file
from prior_fast.prepare.studies.builder import StudyBuilder
from prior_fast.prepare.studies.finding_words import chexpert_labels
from prior_fast.prepare.studies.location import folder, location
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.radiology.labels import CHEXPERT_LABELS
from prior_fast.radiology.study import Report

HELP = "OpenI (IU X-Ray): NLMCXR_reports (XML) and NLMCXR_png or NLMCXR_dcm"
EXAMPLE = "--images NLMCXR_png --reports NLMCXR_reports"
DEFAULTS = {"sections": "tolerant", "min_sentences": 1}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the files are."""
    parser.add_argument("--images", required=True, type=location, metavar="DIR", help="folder of the images")
    parser.add_argument("--reports", required=True, type=location, metavar="DIR", help="folder of the XML files")
    parser.add_argument(
        "--projections",
        type=location,
        metavar="FILE",
        help="table with filename and projection (indiana_projections.csv); keeps frontal images (default: keep all)",
    )


def read(images: str, reports: str, projections: str | None = None) -> StudyPlan:
    """Read the XML files. Labels are the MeSH terms that mean one of CheXpert's.

    Raises:
        UsageError: a folder is missing, or there is no XML file.
    """
    root, texts = folder("--images", images), folder("--reports", reports)
    paths = sorted(path for path in texts.rglob("*.xml") if is_file(path))
    if not paths:
        there = ", ".join(sorted(path.name for path in texts.iterdir())[:4]) or "nothing"
        raise UsageError(f"--reports {texts}: there is no .xml file in it or below; it holds {there}")
    views = _views(projections)
    builder = StudyBuilder(root, texts, CHEXPERT_LABELS)
    for path in paths:
        name = path.relative_to(texts).as_posix()
        try:
            record = _parse(path)
        except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
            builder.reject(path.stem, name, "XML not readable", f"({error})")
            continue
        study = _attribute(record, "uId", "id") or path.stem
        sections = {part.get("Label", "").upper(): (part.text or "").strip() for part in record.iter("AbstractText")}
        found = tuple(text for label in ("FINDINGS", "IMPRESSION") if (text := sections.get(label, "")))
        labels = chexpert_labels(term.text or "" for term in record.iter("major"))
        pictures = [image.get("id", "") for image in record.iter("parentImage")]
        if not found or not pictures:
            builder.reject(study, name, "no findings or impression" if not found else "no image in the XML file")
            continue
        for picture in pictures:
            builder.add(study, [picture], Report(sections=found), study, view=views.get(_key(picture)), labels=labels)
    builder.understood = [("reports", f"{len(paths)} XML files"), ("images", str(root))]
    if not views:
        builder.notes.append("the XML files do not say the view: lateral images are kept too (--projections FILE)")
    return builder.plan([*paths, *([Path(projections)] if projections else [])])


def _parse(path: Path) -> ElementTree.Element:
    data = path.read_bytes()
    # Entities can grow without limit; OpenI has none. Without zero bytes, UTF-16 is searched too.
    if b"<!ENTITY" in data.replace(b"\0", b""):
        raise ValueError("it defines entities")
    return ElementTree.fromstring(data)


def _attribute(record: ElementTree.Element, tag: str, name: str) -> str:
    element = record.find(f".//{tag}")
    return "" if element is None else element.get(name, "")


def _views(projections: str | None) -> dict[str, str]:
    """The view of each image of Kaggle's indiana_projections.csv, whose names are like 1_IM-0001-4001.dcm.png."""
    if projections is None:
        return {}
    table = read_table(Path(projections), "--projections")
    columns = [table.find("--projections", None, names) for names in (("filename", "image"), ("projection", "view"))]
    names, views = (table.texts(str(column)) for column in columns)
    return {_key(name): view for name, view in zip(names, views) if name and view}


def _key(name: str) -> str:
    return name.lower().removeprefix("cxr").split(".")[0]
