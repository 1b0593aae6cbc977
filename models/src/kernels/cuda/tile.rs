//! How a product is cut into tiles, of which a block of threads makes one.

/// The tiles of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Rows.
    pub(super) bm: usize,
    /// Columns.
    pub(super) bn: usize,
    /// Parts of the factors in shared memory at a time.
    pub(super) stages: usize,
    /// Parts that the sums over `k` are taken in, by blocks of their own.
    pub(super) splits: usize,
    /// Numbers of `k` in such a part, the last one excepted.
    pub(super) k_per_split: usize,
}

/// Rows of a tile.
const ROWS: usize = 128;

/// Numbers of `k` in a stage.
const DEPTH: usize = 64;

/// A kind of tiles, and what it takes: fitted to 24 products of a U-Net and of BERT on an H200, of each of which it
/// picks tiles within 6 % of the best.
struct Kind {
    columns: usize,
    stages: usize,
    /// Nanoseconds of a step of [`DEPTH`] numbers of `k`, where a multiprocessor has one block.
    step: usize,
    /// Nanoseconds of the first load and the last store.
    ends: usize,
}

const KINDS: [Kind; 5] = [
    Kind { columns: 64, stages: 4, step: 280, ends: 1960 },
    Kind { columns: 128, stages: 3, step: 403, ends: 4350 },
    Kind { columns: 128, stages: 4, step: 365, ends: 3260 },
    Kind { columns: 192, stages: 4, step: 497, ends: 4910 },
    Kind { columns: 256, stages: 4, step: 658, ends: 5890 },
];

/// Nanoseconds of one more launch, and numbers of a part of the sums that are written and read again in one.
const FINISH: (usize, usize) = (3000, 300);

/// Numbers of `k` that are worth a block of their own.
const LEAST: usize = 256;

impl Tile {
    /// Bytes of shared memory: the ring, its two barriers a stage, and 1024 for the alignment.
    pub(super) fn shared(&self) -> usize {
        self.stages * ((ROWS + self.bn) * 2 * DEPTH + 16) + 1024
    }

    /// Blocks that a multiprocessor holds at a time, where one block may have at most `shared_limit` bytes of its
    /// shared memory: the system takes 1024 of each, and one block may not have the last 1024.
    pub(super) fn blocks(&self, shared_limit: usize) -> usize {
        if 2 * (self.shared() + 1024) <= shared_limit + 1024 { 2 } else { 1 }
    }

    /// Nanoseconds that the product takes on a card of so many multiprocessors.
    fn cost(&self, kind: &Kind, [m, n, k]: [usize; 3], card: (usize, usize)) -> usize {
        let (multiprocessors, at_a_time) = (card.0, self.blocks(card.1));
        let blocks = m.div_ceil(ROWS) * n.div_ceil(self.bn) * self.splits;
        let together = if blocks > multiprocessors { at_a_time } else { 1 };
        let steps = self.k_per_split.min(k).div_ceil(DEPTH);
        let waves = blocks.div_ceil(multiprocessors * at_a_time);
        let finish = if self.splits > 1 { FINISH.0 + m * n * self.splits / FINISH.1 } else { 0 };
        waves * (together * steps * kind.step + kind.ends) + finish
    }
}

/// The tiles of `m` times `k` by `k` times `n` numbers, on a card of so many multiprocessors whose blocks have
/// at most `shared_limit` bytes of shared memory.
pub(super) fn tile(sizes: [usize; 3], multiprocessors: usize, shared_limit: usize) -> Tile {
    best(&[1, 2, 4, 8, 16], sizes, multiprocessors, shared_limit)
}

/// The tiles where the sums are taken in one part.
pub(super) fn whole(sizes: [usize; 3], multiprocessors: usize, shared_limit: usize) -> Tile {
    best(&[1], sizes, multiprocessors, shared_limit)
}

fn best(splits: &[usize], sizes: [usize; 3], multiprocessors: usize, shared_limit: usize) -> Tile {
    let k = sizes[2];
    let tiles = KINDS.iter().flat_map(|kind| {
        splits.iter().filter(|&&splits| splits == 1 || k / splits >= LEAST).map(move |&splits| {
            let k_per_split = k.div_ceil(splits).next_multiple_of(DEPTH);
            let splits = k.div_ceil(k_per_split);
            let Kind { columns, stages, .. } = *kind;
            (kind, Tile { bm: ROWS, bn: columns, stages, splits, k_per_split })
        })
    });
    tiles
        .filter(|(_, tile)| tile.shared() <= shared_limit)
        .min_by_key(|(kind, tile)| tile.cost(kind, sizes, (multiprocessors, shared_limit)))
        .map(|(_, tile)| tile)
        .expect("the smallest tiles fit any card of compute capability 8.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An H200's, and those of a GeForce of compute capability 8.6.
    const LARGE: (usize, usize) = (132, 232_448);
    const SMALL: (usize, usize) = (28, 101_376);

    fn of(sizes: [usize; 3], (multiprocessors, shared): (usize, usize)) -> Tile {
        tile(sizes, multiprocessors, shared)
    }

    #[test]
    fn a_large_product_has_large_tiles_in_one_part() {
        let tile = of([8192, 4096, 4096], LARGE);
        assert_eq!((tile.bn, tile.splits), (256, 1));
        assert!(tile.k_per_split >= 4096);
    }

    #[test]
    fn a_small_product_is_cut_along_k() {
        let tile = of([128, 1280, 11520], LARGE);
        assert!(tile.splits > 1 && tile.k_per_split >= LEAST, "{tile:?}");
        assert!(tile.k_per_split.is_multiple_of(DEPTH));
        assert_eq!(of([77, 1280, 320], LARGE).splits, 1);
    }

    #[test]
    fn tiles_fit_the_shared_memory_and_every_part_has_some_of_k() {
        for (m, n, k) in [(1, 1, 1), (4096, 320, 2880), (1000, 1000, 1000), (16, 10240, 1300)] {
            for card in [LARGE, SMALL] {
                let tile = of([m, n, k], card);
                assert!(tile.shared() <= card.1, "{tile:?}");
                let covered = |splits: usize| splits * tile.k_per_split;
                assert!(covered(tile.splits) >= k && covered(tile.splits - 1) < k, "{tile:?}");
            }
        }
    }
}
