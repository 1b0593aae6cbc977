//! What every `config.json` of transformers may say besides the model's sizes.

use serde_json::Value;

use super::{Accepted, KeyError};

/// Keys of `PretrainedConfig`, of generation and of bookkeeping. None changes a forward pass.
pub(super) const TRANSFORMERS: Accepted = Accepted {
    fixed: &[("chunk_size_feed_forward", &["0"]), ("torchscript", &["false"])],
    ignored: &[
        "architectures",
        "model_type",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "initializer_range",
        "initializer_factor",
        // A classifier's are read by [`labels`].
        "id2label",
        "label2id",
        "num_labels",
        "problem_type",
        "finetuning_task",
        "task_specific_params",
        "tokenizer_class",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "sep_token_id",
        "cls_token_id",
        "mask_token_id",
        "decoder_start_token_id",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "prefix",
        "suppress_tokens",
        "begin_suppress_tokens",
        "bad_words_ids",
        "output_past",
        "use_cache",
        "use_return_dict",
        "return_dict",
        "return_dict_in_generate",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "is_encoder_decoder",
        "use_bfloat16",
        "tf_legacy_loss",
        "max_length",
        "min_length",
        "do_sample",
        "early_stopping",
        "num_beams",
        "num_beam_groups",
        "num_return_sequences",
        "diversity_penalty",
        "exponential_decay_length_penalty",
        "length_penalty",
        "repetition_penalty",
        "encoder_no_repeat_ngram_size",
        "no_repeat_ngram_size",
        "remove_invalid_values",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "gradient_checkpointing",
        "label_smoothing",
    ],
};

/// The names of a classifier's labels, in order, as transformers understands a `config.json`: `id2label`,
/// or `num_labels` nameless ones, or two.
///
/// # Errors
///
/// The ids are not 0 and up, there are no labels or more than a million, or `num_labels` says another number.
pub fn labels(json: &Value) -> Result<Vec<String>, KeyError> {
    const MOST: u64 = 1_000_000;
    let key = |key: &str| json.get(key).filter(|value| !value.is_null());
    let unsupported = |key: &str, value: &Value, expected: String| KeyError::Unsupported {
        key: key.to_owned(),
        value: value.to_string(),
        expected,
    };
    let count = key("num_labels").map(|value| {
        let count = value.as_u64().filter(|count| (1..=MOST).contains(count));
        count.ok_or_else(|| unsupported("num_labels", value, format!("1 to {MOST}")))
    });
    let count = count.transpose()?.map(|count| count as usize);
    let Some(value) = key("id2label") else {
        return Ok((0..count.unwrap_or(2)).map(|id| format!("LABEL_{id}")).collect());
    };
    let names = value.as_object().filter(|names| !names.is_empty());
    let name = |id: usize| Some(names?.get(&id.to_string())?.as_str()?.to_owned());
    let named: Option<Vec<String>> = (0..names.map_or(1, serde_json::Map::len)).map(name).collect();
    let Some(named) = named else {
        let expected = "a name for each of the ids 0, 1, 2 and so on".to_owned();
        return Err(unsupported("id2label", value, expected));
    };
    if let Some(count) = count.filter(|&count| count != named.len()) {
        let expected = format!("{}, the labels of id2label", named.len());
        return Err(unsupported("num_labels", &count.into(), expected));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_named_numbered_or_two() {
        let read = |json| labels(&json).map_err(|error| error.to_string());
        assert_eq!(read(json!({})).unwrap(), ["LABEL_0", "LABEL_1"]);
        assert_eq!(read(json!({"num_labels": 1})).unwrap(), ["LABEL_0"]);
        let named = json!({"num_labels": null, "id2label": {"1": "dog", "0": "cat"}});
        assert_eq!(read(named).unwrap(), ["cat", "dog"]);
        for (wrong, key) in [
            (json!({"num_labels": 0}), "num_labels"),
            (json!({"num_labels": 1e9}), "num_labels"),
            (json!({"num_labels": 3, "id2label": {"0": "cat"}}), "num_labels"),
            (json!({"id2label": {}}), "id2label"),
            (json!({"id2label": {"1": "dog"}}), "id2label"),
            (json!({"id2label": {"0": 5}}), "id2label"),
            (json!({"id2label": ["cat"]}), "id2label"),
        ] {
            assert!(read(wrong.clone()).unwrap_err().starts_with(&format!("`{key}`")), "{wrong}");
        }
    }
}
