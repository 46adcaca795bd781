"""The headers of radiology reports in English and Spanish, and what each of them says about the text below it."""

import enum
import functools
import re
import unicodedata


class Kind(enum.Enum):
    """What follows a header, and how far it reaches."""

    FINDINGS = "findings"
    IMPRESSION = "impression"
    # Titles such as "FINAL REPORT", and names of the views: the text below them has no header of its own.
    TITLE = "title"
    VIEWS = "views"
    # Names of a body part ("Lungs: clear."): a part of the sentence, never the end of findings.
    LABEL = "label"
    # Dropped up to the end of the paragraph, as a report without the header FINDINGS may go on below it.
    BEFORE = "before the findings"
    # Dropped up to the end of the line, and further if the line is wrapped.
    STUDY = "name of the examination"
    # Dropped up to the end of the line.
    LINE = "facts about the patient"
    # Dropped up to the next header.
    AFTER = "after the impression"


WANTED = (Kind.FINDINGS, Kind.IMPRESSION)

# Without accents, in lower case. An ending -s is removed before the comparison, also from the names here.
_NAMES: dict[Kind, str] = {
    Kind.FINDINGS: """
        finding, result, report, description, observation, comment, narrative, body, body of report, report
        text, finding in detail, reference finding, hallazgo, resultado, informe, descripcion, observacion,
        observaciones, comentario, descripcion de hallazgos, hallazgo radiologicos, cuerpo del informe, texto
        del informe, informe radiologico, lectura
    """,
    Kind.IMPRESSION: """
        impression, conclusion, opinion, summary, assessment, interpretation, diagnosis, diagnoses, imp, dx,
        bottom line, summary of findings, impression diagnosis, diagnostic impression, concluding remarks, final
        diagnosis, impresion, impresiones, conclusiones, diagnostico, resumen, interpretacion, valoracion,
        impresion diagnostica, impresion radiologica, conclusion diagnostica, diagnostico radiologico, juicio
        diagnostico, orientacion diagnostica, en resumen, en conclusion
    """,
    Kind.BEFORE: """
        indication, history, information, detail, clinical data, clinical question, question, reason, reason for
        exam, reason for examination, reason for study, reason for the study, reason for this examination,
        reason for visit, reason for referral, reason for request, reason for procedure, reason for order, hpi,
        history of present illness, symptom, sign and symptoms, clinical diagnosis, clinical impression,
        admitting diagnosis, provisional diagnosis, preoperative diagnosis, pre operative diagnosis, referral
        diagnosis, chief complaint, complaint, pfi, past medical history, medical history, surgical history,
        patient information, background, underlying condition, technique, comparison, comparison exam,
        comparison study, comparison film, prior exam, prior study, prior studies, previous exam, previous
        study, previous studies, prior, reference exam, reference examination, contrast, dose, radiation dose,
        protocol, quality, image quality, limitation, view, projection, number of views, motivo, motivo de
        consulta, motivo de la consulta, motivo de peticion, motivo de la peticion, motivo del estudio, motivo
        de estudio, motivo de la exploracion, motivo de exploracion, motivo de solicitud, motivo de ingreso,
        motivo del examen, datos clinicos, dato clinico, informacion clinica, historia clinica, historia,
        resumen clinico, clinica, indicacion, indicaciones, indicacion clinica, indicacion del estudio,
        indicacion del examen, diagnostico clinico, diagnostico de presuncion, diagnostico de ingreso, sospecha,
        sospecha clinica, sospecha diagnostica, juicio clinico, antecedente, antecedentes personales,
        antecedentes clinicos, antecedentes de interes, enfermedad actual, sintomas, tecnica, tecnica empleada,
        tecnica utilizada, tecnica de estudio, tecnica del examen, protocolo, comparacion, comparaciones,
        comparativa, estudio comparativo, estudio previo, estudios previos, estudios anteriores, estudio de
        comparacion, control previo, proyeccion, proyecciones, dosis, contraste, calidad, pregunta clinica
    """,
    Kind.STUDY: """
        examination, exam, study, procedure, type of examination, type of exam, type of study, exam type, study
        type, examination type, exam performed, examination performed, procedure performed, study performed,
        exam description, study description, procedure description, name of exam, title, order, body part,
        modality, estudio, exploracion, exploraciones, examen, prueba, procedimiento, tipo de estudio, tipo de
        examen, tipo de exploracion, exploracion realizada, estudio realizado, estudio solicitado, examen
        realizado, exploracion solicitada, prueba realizada, modalidad
    """,
    Kind.LINE: """
        patient, patient name, patient id, name, mrn, medical record number, dob, date of birth, birth date,
        birthdate, age, sex, gender, date, date of exam, date of examination, date of study, date of service,
        exam date, study date, examination date, report date, time, exam time, accession, accession no,
        accession number, report status, status, referring physician, referring doctor, ordering physician,
        ordering provider, ordering doctor, referrer, requesting physician, requested by, ordered by, referred
        by, hospital, department, institution, facility, ward, paciente, nombre, nombre del paciente, edad,
        sexo, genero, fecha, fecha de nacimiento, fecha del estudio, fecha de estudio, fecha de la exploracion,
        fecha de informe, fecha del informe, fecha del examen, hora, nhc, numero de historia, medico
        solicitante, medico peticionario, solicitante, solicitado por, servicio solicitante, servicio, centro,
        identificacion
    """,
    Kind.AFTER: """
        recommendation, recommendation and follow up, suggestion, plan, recommended follow up, followup, follow up,
        wet read, wetread, preliminary read, preliminary report, notification, communication, critical result,
        critical finding, discrepancy, addendum, addenda, attestation, teaching physician statement, disclaimer,
        signed by, signed, signature, signed on, electronically signed, electronically signed by, dictated by,
        dictated, transcribed by, transcriptionist, reported by, read by, reviewed by, verified by, approved by,
        interpreted by, finalized by, attending, attending physician, attending radiologist, resident,
        radiologist, reporting radiologist, interpreting radiologist, electronically approved by, electronically
        verified by, report electronically signed by, cpt, cpt code, icd, icd code, code, codes, billing,
        recomendacion, recomendaciones, sugerencia, adenda, adendum, addendo, seguimiento, comunicacion, firma,
        firmado, firmado por, fdo, radiologo, radiologa, medico radiologo, medico informante, informado por,
        validado por, dictado por, redactado por, residente, facultativo, transcrito por
    """,
    Kind.TITLE: """
        final report, radiology report, radiologic report, radiological report, final addendum, chest x ray
        report, cxr report, xray report, x ray report, imaging report, diagnostic report, diagnostic imaging
        report, radiograph report, report of examination, informe de radiologia, informe final, informe de
        radiografia de torax, informe radiologico de torax
    """,
    Kind.LABEL: """
        heart, lung, cardiac, pulmonary, pleura, pleural space, mediastinum, cardiomediastinum,
        cardiomediastinal silhouette, cardiac silhouette, heart and mediastinum, lung and pleura, heart size,
        bone, osseous structures, bones and soft tissues, soft tissue, skeleton, chest wall, diaphragm, hilum,
        hila, airway, trachea, vessel, aorta, support devices, device, tube, lines, lines and tubes, tubes and
        lines, abdomen, upper abdomen, spine, rib, chest, thorax, corazon, pulmon, pulmones, pleuras,
        mediastino, silueta cardiaca, silueta cardiomediastinica, hilio, parenquima, parenquima pulmonar, campos
        pulmonares, senos costofrenicos, hueso, estructuras oseas, partes oseas, partes blandas, diafragma,
        traquea, torax, dispositivos, via aerea, abdomen superior
    """,
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that may stand before a name ("RADIOGRAPHIC FINDINGS", "BRIEF HISTORY") and change nothing.
_MODIFIERS = _words(
    """
    clinical relevant pertinent brief patient radiographic radiologic radiological radiology imaging xray final
    overall main principal key significant general additional other current diagnostic medical detailed
    technical prior previous preliminary chest cxr the
    """
)
_JOINED = re.compile(r"\s*[/&+,]\s*|\s+(?:and|y|e|or|o|with)\s+")

# A header of these words alone names the views. They are singular, as `plain_form` makes them.
_VIEW_WORDS = _words(
    """
    chest thorax portable mobile bedside supine upright erect semi semiupright semierect sitting frontal lateral
    lat pa ap postero anterior posteroanterior anteroposterior posterior decubitus view one two three single
    dual double plain film radiograph radiography radiographic xray x ray cxr rx exam examination study image
    imaging serie rib bone window and of the with in on a an only right left both bilateral projection digital
    report radiografia torax simple portatil proyeccion proyeccione y de en del dos una decubito supino
    bipedestacion sedestacion perfil placa telerradiografia
    """
)
_VIEW_CORE = _words("chest thorax torax film radiograph radiography xray ray cxr rx radiografia")

# Words that tell the kind of a longer header, the first match counts.
_TELLING: tuple[tuple[Kind, frozenset[str]], ...] = (
    (Kind.IMPRESSION, _words("impression impresion")),
    (Kind.FINDINGS, _words("finding hallazgo")),
    (
        Kind.BEFORE,
        _words("indication history comparison technique antecedente indicacion comparacion tecnica"),
    ),
    (Kind.AFTER, _words("addendum recommendation recomendacion recomendacione")),
)
_SHORTEST_WITH_SLIP = 7


def plain_form(words: str) -> str:
    """A header in lower case without accents, brackets, plural -s and punctuation, so that it can be looked up."""
    bare = "".join(map(_without_accents, words.casefold()))
    bare = re.sub(r"\([^)]*\)?", " ", bare).replace("x-ray", "xray").replace("follow-up", "follow up")
    bare = re.sub(r"[^\w/&+, ]|[\d_]", " ", bare)
    bare = re.sub(r"([/&+,])", r" \1 ", bare)
    return " ".join(_singular(word) for word in bare.split())


@functools.lru_cache(maxsize=1024)
def _without_accents(character: str) -> str:
    """One character, decomposed, without its combining marks.

    Decomposing a whole text would also sort its combining marks, in quadratic time for a long run of them.
    """
    folded = unicodedata.normalize("NFKD", character)
    return "".join(part for part in folded if not unicodedata.combining(part))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


_KINDS: dict[str, Kind] = {
    plain_form(name): kind for kind, names in _NAMES.items() for name in names.replace("\n", " ").split(",")
}
_LONG_NAMES = tuple(
    (name, kind)
    for name, kind in _KINDS.items()
    if len(name) >= _SHORTEST_WITH_SLIP and " " not in name and kind not in (Kind.LABEL, Kind.LINE, Kind.TITLE)
)


# The last words of headers in plain form; "" is that of a number.
_LAST_WORDS = frozenset(("", *"/&+,", *(name.split()[-1] for name in _KINDS))) | _VIEW_WORDS
# Of every name, how many words it has at most; a longer header is a name only after words that change nothing.
_MOST_WORDS = max(len(name.split()) for name in _KINDS)
# Longer texts are looked up once in a report; keeping them would take memory.
_LONGEST_KEPT = 120


def header_kind(words: str) -> Kind | None:
    """The kind of a header by its whole words; None if it is not known."""
    return _kept_kind(words) if len(words) <= _LONGEST_KEPT else _kind(words)


@functools.lru_cache(maxsize=4096)
def _kept_kind(words: str) -> Kind | None:
    return _kind(words)


def _kind(words: str) -> Kind | None:
    form = plain_form(words)
    if not form:
        return None
    known = _kind_of_part(form) or _kind_of_joined(form)
    if known is None and " " not in form and len(form) >= _SHORTEST_WITH_SLIP - 1:
        known = next((kind for name, kind in _LONG_NAMES if _one_slip(form, name)), None)
    if known is None and _names_views(form):
        known = Kind.VIEWS
    return known


@functools.lru_cache(maxsize=4096)
def may_end_header(word: str) -> bool:
    """Whether a known header may end with this word, if it has no opening bracket; most words can be skipped so."""
    *_, last = plain_form(word).split() or [""]
    slip = len(last) >= _SHORTEST_WITH_SLIP - 1 and any(_one_slip(last, name) for name, _ in _LONG_NAMES)
    return last in _LAST_WORDS or slip


def telling_kind(words: str) -> Kind | None:
    """The kind of a longer header that is not known as a whole but has a telling word ("FINDINGS ON THE LEFT")."""
    parts = re.split(r"[ /&+,]+", plain_form(words))
    if len(parts) > 6:
        return None
    return next((kind for kind, telling in _TELLING if not telling.isdisjoint(parts)), None)


def _names_views(form: str) -> bool:
    """Whether a header in plain form only names the views or the examination ("pa and lateral chest")."""
    words = {word for word in re.split(r"[ /&+,]+", form) if word}
    return words <= _VIEW_WORDS and not words.isdisjoint(_VIEW_CORE)


def _kind_of_part(form: str) -> Kind | None:
    words = form.split()
    leading = next((index for index, word in enumerate(words) if word not in _MODIFIERS), len(words))
    starts = range(max(0, len(words) - _MOST_WORDS), min(leading + 1, len(words)))
    names = (" ".join(words[start:]) for start in starts)
    return next((_KINDS[name] for name in names if name in _KINDS), None)


def _kind_of_joined(form: str) -> Kind | None:
    """The kind of "findings and impression": the most wanted kind of its parts, if all of them are known."""
    parts = [_kind_of_part(part) for part in _JOINED.split(form) if part]
    if len(parts) < 2 or None in parts:
        return None
    return next((kind for kind in Kind if kind in parts and kind is not Kind.TITLE), None)


def _one_slip(word: str, name: str) -> bool:
    """Whether one letter too many, too few or wrong, or two exchanged neighbours make the difference."""
    if abs(len(word) - len(name)) > 1:
        return False
    same = next((index for index, (a, b) in enumerate(zip(word, name)) if a != b), min(len(word), len(name)))
    rest, wanted = word[same:], name[same:]
    exchanged = len(rest) > 1 and rest[1::-1] + rest[2:] == wanted
    return exchanged or rest[1:] == wanted[1:] or rest[1:] == wanted or rest == wanted[1:]
