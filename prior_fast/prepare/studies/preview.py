"""A picture of some images of a prepared dataset with their first sentences, to see at a glance what was read."""

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.radiology.xray import IMAGE_SIZE

PREVIEW_FILE = "preview.png"
_ACROSS, _COUNT, _MARGIN = 4, 16, 8
_LINES, _LINE = 5, 15
_FONT = 12


def write_preview(folder: Path) -> None:
    """Write preview.png: up to 16 studies, spread over all, each with its first image and its first sentences."""
    dataset = PreparedDataset.open(folder)
    chosen = (
        [place * len(dataset) // _COUNT for place in range(_COUNT)] if len(dataset) > _COUNT else range(len(dataset))
    )
    down = -(-len(chosen) // _ACROSS)
    cell = IMAGE_SIZE + _MARGIN, IMAGE_SIZE + _MARGIN + (_LINES + 1) * _LINE
    sheet = Image.new("L", (_ACROSS * cell[0] + _MARGIN, down * cell[1] + _MARGIN), 255)
    draw, font = ImageDraw.Draw(sheet), _font()
    for place, study in enumerate(chosen):
        x, y = (_MARGIN + number * size for number, size in zip((place % _ACROSS, place // _ACROSS), cell))
        rows = dataset.image_rows(study)
        sheet.paste(Image.fromarray(dataset.image(rows[0])), (x, y))
        title = f"{dataset.study_names[study]}" + (f", {len(rows)} images" if len(rows) > 1 else "")
        lines = [title[:40], *_wrapped(draw, font, " ".join(dataset.sentences(study)))]
        for number, line in enumerate(lines):
            draw.text((x, y + IMAGE_SIZE + 2 + number * _LINE), line, 0 if number else 110, font)
    # Pillow reports a full disk without the system's error number.
    data = io.BytesIO()
    sheet.save(data, format="PNG", optimize=False)
    (folder / PREVIEW_FILE).write_bytes(data.getvalue())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which Matplotlib brings and which has the letters of most languages."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), _FONT)


def _wrapped(draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> list[str]:
    """The first lines of a text, as wide as an image."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if draw.textlength(longer, font) > IMAGE_SIZE and line:
            lines.append(line)
            line = word
        else:
            line = longer
        if len(lines) == _LINES:
            return [*lines[:-1], f"{lines[-1][:-2]} ..."]
    return [*lines, line] if line else lines
