//! The text of the instruction that multiplies 64 rows on Hopper: it names each of its registers, whose number
//! depends on the tile.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::launch::Piece;

/// Which `wgmma` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form {
    /// Columns of the right factor.
    pub(super) columns: usize,
    /// Of f16, instead of bf16.
    pub(super) half: bool,
    /// Whether the left factor's columns lie in shared memory one after the other, instead of its rows.
    pub(super) a_by_columns: bool,
    /// Whether the right factor's rows do, instead of its columns.
    pub(super) b_by_rows: bool,
}

/// The function as a piece of a kernel. Texts are few and are made once.
pub(super) fn piece(form: Form) -> Piece {
    static PIECES: Mutex<BTreeMap<Form, Piece>> = Mutex::new(BTreeMap::new());
    let mut pieces = PIECES.lock().expect("nothing in here panics");
    *pieces.entry(form).or_insert_with(|| Piece::new(wgmma(form).leak()))
}

/// `d += a b`, `a` and `b` describing tiles in shared memory.
fn wgmma(Form { columns, half, a_by_columns, b_by_rows }: Form) -> String {
    let count = columns / 2;
    let registers: Vec<_> = (0..count).map(|i| format!("%{i}")).collect();
    let outputs: Vec<_> = (0..count).map(|i| format!("\"+f\"(d[{i}])")).collect();
    let (registers, outputs) = (registers.join(", "), outputs.join(", "));
    let kind = if half { "f16.f16" } else { "bf16.bf16" };
    let (a, b) = (count, count + 1);
    let (a_turned, b_turned) = (u8::from(a_by_columns), u8::from(b_by_rows));
    format!(
        "DEVICE void wgmma(float (&d)[{count}], u64 a, u64 b) {{\n  \
         asm volatile(\"{{.reg .pred p; setp.ne.b32 p, 1, 0; \
         wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{kind} {{{registers}}}, %{a}, %{b}, \
         p, 1, 1, {a_turned}, {b_turned};}}\" : {outputs} : \"l\"(a), \"l\"(b));\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_names_each_register_and_then_its_operands() {
        let form = Form { columns: 8, half: true, a_by_columns: false, b_by_rows: true };
        let expected = "DEVICE void wgmma(float (&d)[4], u64 a, u64 b) {\n  \
            asm volatile(\"{.reg .pred p; setp.ne.b32 p, 1, 0; \
            wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 1;}\" : \
            \"+f\"(d[0]), \"+f\"(d[1]), \"+f\"(d[2]), \"+f\"(d[3]) : \
            \"l\"(a), \"l\"(b));\n}\n";
        assert_eq!(wgmma(form), expected);
    }
}
