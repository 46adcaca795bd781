import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from prior_fast.errors import UsageError
from prior_fast.radiology import tokenizer as module
from prior_fast.radiology.tokenizer import load_tokenizer, tokenize, train_tokenizer

# Many words with equal counts, so that a trainer that breaks ties randomly is detected.
SENTENCES = [
    f"The {place}{kind} {part} is {degree}ly {change}."
    for place in ("peri", "sub", "supra", "infra", "para")
    for kind in ("hilar", "pleural", "diaphragmatic", "clavicular", "cardial")
    for part in ("opacity", "effusion", "nodule", "line")
    for degree in ("mild", "moderate", "severe", "subtl")
    for change in ("increased", "decreased", "unchanged")
]


def test_training_is_repeatable(monkeypatch):
    # The trainer's hash maps have a new seed in each call.
    monkeypatch.setattr(module, "VOCAB_SIZE", 120)
    made = {train_tokenizer(SENTENCES).backend_tokenizer.to_str() for _ in range(5)}
    assert len(made) == 1


def test_trained_tokens_spell_the_sentences():
    tokenizer = train_tokenizer(SENTENCES)
    for sentence, ids in zip(SENTENCES[::37], tokenize(tokenizer, SENTENCES[::37])):
        assert ids.dtype == np.int32
        assert tokenizer.decode(ids) == sentence.lower()
        assert not set(ids.tolist()) & set(tokenizer.all_special_ids)


def test_special_tokens_come_first_and_frame_a_text():
    tokenizer = train_tokenizer(SENTENCES)
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ids = tokenizer("Mild opacity")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert len(tokenizer) == len(set(tokenizer.get_vocab().values()))


def test_frequency_and_size_limits(monkeypatch):
    # Each pair of characters of "zyxw" is seen once, "clear" twice.
    vocabulary = train_tokenizer(["zyxw clear", "clear"]).get_vocab()
    assert "clear" in vocabulary
    assert "zyxw" not in vocabulary
    assert "##y" in vocabulary
    full = len(train_tokenizer(SENTENCES))
    monkeypatch.setattr(module, "VOCAB_SIZE", 100)
    assert len(train_tokenizer(SENTENCES)) == 100 < full


def test_a_word_that_never_has_pieces_does_not_change_the_vocabulary():
    word = "".join(f"{number:b}zq" for number in range(4000))
    plain = train_tokenizer(SENTENCES).get_vocab()
    assert train_tokenizer([*SENTENCES, word]).get_vocab() == plain
    assert train_tokenizer([*SENTENCES[1:], f"{word} {SENTENCES[0]}"]).get_vocab() == plain
    tokenizer = train_tokenizer(SENTENCES)
    assert tokenize(tokenizer, [word])[0].tolist() == [tokenizer.unk_token_id]


def test_a_sentence_may_have_no_token():
    tokenizer = train_tokenizer(SENTENCES)
    assert [bool(len(ids)) for ids in tokenize(tokenizer, ["", "mild"])] == [False, True]


def test_a_saved_tokenizer_loads_from_its_folder(tmp_path):
    tokenizer = train_tokenizer(SENTENCES)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.cls_token_id == tokenizer.cls_token_id


def test_what_can_not_be_loaded_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nothing-here.*--tokenizer train"):
        load_tokenizer(str(tmp_path / "nothing-here"))


def test_a_tokenizer_without_cls_is_refused(tmp_path):
    bare = Tokenizer(models.WordLevel({"[UNK]": 0, "clear": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]").save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="no cls_token and no sep_token"):
        load_tokenizer(str(tmp_path))
