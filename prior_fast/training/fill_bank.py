"""Starting the prototype bank from sentences, for runs too short to draw it there from random prototypes."""

import torch
from sklearn.cluster import kmeans_plusplus

from prior_fast.config import RunConfig
from prior_fast.data.loader import evaluation_batches
from prior_fast.data.store import PreparedDataset
from prior_fast.model.prior import PRIOR
from prior_fast.training.distributed import Ranks

SENTENCES_PER_PROTOTYPE = 32


@torch.no_grad()
def fill_bank(model: PRIOR, dataset: PreparedDataset, config: RunConfig, ranks: Ranks) -> None:
    """Make the prototypes sentences of the training split, far from each other, chosen by k-means++.

    A split with fewer sentences than prototypes leaves the last prototypes as they are.
    """
    model.eval()
    prototypes = config.model.bank.prototypes
    wanted, found, sentences = prototypes * SENTENCES_PER_PROTOTYPE, 0, []
    for batch in evaluation_batches(dataset, config.batch_size, config.data.max_tokens):
        sentences.append(model.encode_sentences(batch.to(ranks.device)).float().cpu())
        found += len(sentences[-1])
        if found >= wanted:
            break
    model.train()
    rows = torch.cat(sentences).numpy()
    chosen, _ = kmeans_plusplus(rows, min(prototypes, len(rows)), random_state=config.seed)
    weight = model.sentence_bank.embed.weight.detach().clone()
    weight[: len(chosen)] = torch.from_numpy(chosen).to(weight)
    if ranks.group is not None:
        torch.distributed.broadcast(weight, 0, group=ranks.group)
    model.sentence_bank.set_prototypes(weight)
