"""What mnre_text.py and minilm_mnre.py share: MNRE-2's text, the classifier of this project where no
example has a picture, its training and its score."""

import ast
import pathlib
import random
import time

import torch
from torch import nn

BATCH, LONGEST, WARMUP = 32, 80, 0.06
MARKERS = ("[H]", "[/H]", "[T]", "[/T]")


def read(folder):
    """The rows of each split, and the relations, `None` first."""
    splits = {}
    for name in ("train", "val", "test"):
        lines = (pathlib.Path(folder) / f"mnre_{name}.txt").read_text(encoding="utf-8-sig").splitlines()
        splits[name] = [ast.literal_eval(line) for line in lines if line.strip()]
    return splits, ["None"] + sorted({row["relation"] for row in splits["train"]} - {"None"})


def encode(row, special, pieces, relations):
    """Ids, the places of [H] and [T], and the label; what is beyond the room is cut at the end. `special`
    gives ids by name, `pieces` those of a token."""
    ids, places = [special["[CLS]"]], {}
    (h0, h1), (t0, t1) = row["h"]["pos"], row["t"]["pos"]
    for at, token in enumerate(row["token"] + [""]):
        if at == h1 and at > h0:
            ids.append(special["[/H]"])
        if at == t1 and at > t0:
            ids.append(special["[/T]"])
        if at == h0:
            places["h"] = len(ids)
            ids.append(special["[H]"])
        if at == t0:
            places["t"] = len(ids)
            ids.append(special["[T]"])
        if token:
            ids.extend(pieces(token))
    if max(places.values()) >= LONGEST - 1:  # keep the part with the later marker
        cut = max(places.values()) - LONGEST // 2
        ids, places = ids[cut:], {key: max(place - cut, 0) for key, place in places.items()}
    ids = ids[: LONGEST - 1] + [special["[SEP]"]]
    return ids, places["h"], places["t"], relations.index(row["relation"])


class Classifier(nn.Module):
    def __init__(self, bert, labels, dropout, activation):
        super().__init__()
        width = bert.config.hidden_size
        self.bert = bert
        self.absent = nn.Parameter(0.02 * torch.randn(2, width))
        self.dense = nn.Linear(4 * width, width)
        self.activation = activation
        self.classifier = nn.Linear(width, labels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids, mask, heads, tails):
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        each = torch.arange(len(ids))
        markers = torch.stack([hidden[each, heads], hidden[each, tails]], 1)
        features = torch.cat([markers, self.absent.expand(len(ids), -1, -1)], 2).flatten(1)
        return self.classifier(self.dropout(self.activation(self.dense(self.dropout(features)))))


def batch(items, hide):
    """`hide` is None or the chance of hiding an ordinary token, the first one's id and the mask's."""
    n = max(len(ids) for ids, *_ in items)
    ids = torch.zeros(len(items), n, dtype=torch.long)
    mask = torch.zeros(len(items), n, dtype=torch.long)
    for row, (item, *_) in enumerate(items):
        ids[row, : len(item)] = torch.tensor(item)
        mask[row, : len(item)] = 1
    if hide is not None:
        chance, first_ordinary, hidden = hide
        ids[(torch.rand(ids.shape) < chance) & (ids >= first_ordinary)] = hidden
    heads, tails, labels = (torch.tensor([item[at] for item in items]) for at in (1, 2, 3))
    return (ids, mask, heads, tails), labels


@torch.no_grad()
def micro_f1(model, items):
    model.eval()
    hits = claimed = gold = 0
    for start in range(0, len(items), 64):
        inputs, labels = batch(items[start : start + 64], None)
        best = model(*inputs).argmax(1)
        hits += int(((best == labels) & (labels != 0)).sum())
        claimed += int((best != 0).sum())
        gold += int((labels != 0).sum())
    model.train()
    return 200 * hits / (claimed + gold)


def one_pass(items, first, by_length):
    """All indices once; after the first few, where asked for, in batches of about the same length."""
    order = random.sample(range(len(items)), len(items))
    if not by_length:
        return order
    begun, others = order[: first % BATCH], order[first % BATCH :]
    for start in range(0, len(others), 50 * BATCH):
        group = others[start : start + 50 * BATCH]
        others[start : start + 50 * BATCH] = sorted(group, key=lambda at: len(items[at][0]))
    whole = len(others) // BATCH * BATCH
    batches = [others[start : start + BATCH] for start in range(0, whole, BATCH)]
    random.shuffle(batches)
    return begun + sum(batches, []) + others[whole:]


def fit(model, encoded, updates, evaluations, rate, decay, hide=None, by_length=False):
    """Trains with AdamW, warm-up and linear decay. The F1 on validation and on test of the evaluation that
    validates best, and examples a second."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, eps=1e-8)
    warm = int(WARMUP * updates)
    share = lambda at: (at + 1) / warm if at < warm else 1 - (at - warm) / (updates - warm)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    best, order, seconds = (-1.0, 0.0), [], 0.0
    for update in range(1, updates + 1):
        begun = time.perf_counter()
        if len(order) < BATCH:
            order += one_pass(encoded["train"], BATCH - len(order), by_length)
        chosen, order = order[:BATCH], order[BATCH:]
        inputs, labels = batch([encoded["train"][at] for at in chosen], hide)
        loss = nn.functional.cross_entropy(model(*inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - begun
        if update % -(-updates // evaluations) == 0 or update == updates:
            validation = micro_f1(model, encoded["val"])
            if validation > best[0]:
                best = (validation, micro_f1(model, encoded["test"]))
    validation, test = (round(value, 1) for value in best)
    return {"validation": validation, "test": test, "examples a second": round(updates * BATCH / seconds, 1)}
