//! The gallery of chains: what was real, and what each round made of it.

use std::path::Path;

use maud::{Markup, html};

use super::ReportError;
use super::figures::digits;
use super::results::{Results, Setting, ShownChain, ShownPicture, ShownRound};

/// The chains, one below the other; nothing where there are none.
pub fn chains(results: &Results, run_folder: &Path) -> Result<Option<Markup>, ReportError> {
    if results.gallery.is_empty() {
        return Ok(None);
    }
    let chains: Result<Vec<Markup>, ReportError> =
        results.gallery.iter().map(|shown| chain(shown, results.setting, run_folder)).collect();
    Ok(Some(html! {
        p.soft {
            "Each chain from left to right: what is real, then round by round what was generated from the \
             step before. T is a sentence, I a picture."
        }
        @for chain in chains? { (chain) }
    }))
}

fn chain(shown: &ShownChain, setting: Setting, run_folder: &Path) -> Result<Markup, ReportError> {
    let mut steps = Vec::new();
    if let Some(real) = &shown.picture {
        let picture = picture(real, "I0, the real picture", run_folder)?;
        steps.push(html! { li { b { "I0, real" } (picture) } });
    }
    if let Some(real) = &shown.text {
        steps.push(html! { li { b { "T0, real" } p { (real) } } });
    }
    for (position, round) in shown.rounds.iter().enumerate() {
        let number = position + 1;
        let class = match round.kept {
            Some(true) => "kept",
            Some(false) => "dropped",
            None => "",
        };
        // What the score judges: the half that this setting generates.
        let (first, second) = match setting {
            Setting::MissingImage => {
                (picture_step(round, number, run_folder)?, text_step(round, number))
            }
            Setting::MissingText => {
                (text_step(round, number), picture_step(round, number, run_folder)?)
            }
        };
        if let Some((title, body)) = first {
            steps.push(html! { li class=(class) { b { (title) } (body) (judged(round)) } });
        }
        if let Some((title, body)) = second {
            steps.push(html! { li { b { (title) } (body) } });
        }
    }
    Ok(html! {
        article.chain {
            h3 { code { (shown.label) } " " (shown.head) " → " (shown.tail) " "
                span.soft { "(" (shown.item) ")" } }
            ol.steps tabindex="0" aria-label={ "Chain of " (shown.item) } {
                @for step in &steps { (step) }
            }
        }
    })
}

type Step = Option<(String, Markup)>;

fn picture_step(round: &ShownRound, number: usize, run_folder: &Path) -> Result<Step, ReportError> {
    let Some(shown) = &round.picture else {
        return Ok(None);
    };
    let alt = format!("I{number}, generated");
    Ok(Some((alt.clone(), picture(shown, &alt, run_folder)?)))
}

fn text_step(round: &ShownRound, number: usize) -> Step {
    let text = round.text.as_ref()?;
    Some((format!("T{number}, generated"), html! { p { (text) } }))
}

fn picture(shown: &ShownPicture, alt: &str, run_folder: &Path) -> Result<Markup, ReportError> {
    Ok(match shown.data_uri(run_folder)? {
        Some(uri) => html! { img src=(uri) alt=(alt); },
        None => html! { p.soft { "The picture's file is no longer there." } },
    })
}

fn judged(round: &ShownRound) -> Markup {
    html! {
        @if let Some(score) = round.score { span.tag { "score " (digits(score, 2)) } }
        @match round.kept {
            Some(true) => span.tag.yes { "kept" },
            Some(false) => span.tag.no { "dropped" },
            None => {}
        }
        @match round.carries_cue {
            Some(true) => span.tag.yes { "✓ carries its cue" },
            Some(false) => span.tag.no { "✗ lacks its cue" },
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    fn page(results: &Results, folder: &Path) -> String {
        chains(results, folder).unwrap().unwrap().into_string()
    }

    #[test]
    fn steps_stand_in_the_order_in_which_they_were_generated() {
        let order = |results: &Results| -> Vec<String> {
            page(results, Path::new("."))
                .split("<b>")
                .skip(1)
                .map(|step| step[..2].to_owned())
                .collect()
        };
        let mut results = example::results();
        results.gallery.truncate(1);
        assert_eq!(order(&results), ["T0", "I1", "T1", "I2", "T2", "I3", "T3"]);
        results.setting = Setting::MissingText;
        results.gallery[0].text = None;
        results.gallery[0].picture = results.gallery[0].rounds[0].picture.clone();
        assert_eq!(order(&results), ["I0", "T1", "I1", "T2", "I2", "T3", "I3"]);
    }

    #[test]
    fn a_picture_whose_file_is_gone_is_said_to_be_gone_and_one_that_is_there_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.png"), b"png").unwrap();
        let mut results = example::results();
        results.gallery.truncate(1);
        results.gallery[0].rounds[0].picture = Some(ShownPicture::File("a.png".into()));
        results.gallery[0].rounds[1].picture = Some(ShownPicture::File("gone.png".into()));
        let page = page(&results, folder.path());
        assert!(page.contains("data:image/png;base64,cG5n\""));
        assert_eq!(page.matches("no longer there").count(), 1);
    }
}
