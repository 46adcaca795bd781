"""The loss terms on validation studies."""

from collections.abc import Callable

import torch

from prior_fast.config import RunConfig
from prior_fast.data.loader import evaluation_batches
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.model.prior import PRIORModel
from prior_fast.training.branches import Branches
from prior_fast.training.stages import STAGES, StepContext, weighted_sum


@torch.no_grad()
def validate(
    model: PRIORModel,
    dataset: PreparedDataset,
    config: RunConfig,
    stage: int,
    tau: float,
    device: torch.device,
    branches: Branches | None = None,
    advance: Callable[[float], object] = lambda done: None,
) -> dict[str, float]:
    """Means of a stage's terms over batches of the training size, without noise, masking or augmentation.

    A contrastive loss depends on the size of the batch, so a last, smaller batch is left out unless it is the only one.

    branches: runs independent parts at once.
    advance: gets the number of studies after each batch.
    """
    model.eval()
    size = min(config.batch_size, len(dataset))
    max_sentences = config.model.sentence_decoder.queries if stage == 3 else 0
    rows = []
    names: list[str] = []
    for batch in evaluation_batches(dataset, size, config.data.max_tokens, max_sentences):
        if len(batch) < size:
            break
        terms = STAGES[stage](model, batch.to(device), StepContext(tau, branches=branches))
        terms = {"loss": weighted_sum(terms, config.loss, stage), **terms}
        names = list(terms)
        rows.append(torch.stack([term.float() for term in terms.values()]))
        advance(size)
    model.train()
    return dict(zip(names, torch.stack(rows).mean(dim=0).tolist()))
