//! Producers' messages: mostly edits requested before, some new ones, some that fail, some invalid. A seed
//! gives the same messages in every run.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::paid::picture;
use crate::pictures;
use crate::tasks::{data, url};

/// Pictures that many tasks share.
const POPULAR: usize = 40;
const STYLES: [(&str, &str); 2] = [("remove_watermark", "the text"), ("description_edit", "at night")];

/// The producers.
pub struct Feed {
    dice: StdRng,
    popular: Vec<Value>,
    /// A URL that answers 404.
    nowhere: String,
    number: u64,
    last: Vec<u8>,
    /// Tasks with ids of their own.
    pub tasks: u64,
    /// Images of these.
    pub images: u64,
    /// Messages by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Tasks of one picture that no earlier task has requested.
    pub new: Vec<String>,
}

impl Feed {
    /// With the dice of this seed; `nowhere` is a URL that answers 404.
    #[must_use]
    pub fn new(seed: u64, nowhere: String) -> Self {
        let popular = (0..POPULAR as u64).map(|seed| data(&picture(seed))).collect();
        let dice = StdRng::seed_from_u64(seed);
        let (last, kinds, new) = (b"{}".to_vec(), BTreeMap::new(), Vec::new());
        Self { dice, popular, nowhere, number: 0, last, tasks: 0, images: 0, kinds, new }
    }

    /// The next message.
    pub fn message(&mut self) -> Vec<u8> {
        self.number += 1;
        let style = STYLES[self.dice.random_range(0..STYLES.len())];
        let (kind, images) = match self.dice.random_range(0..100) {
            0..66 => {
                let count = self.dice.random_range(1..=3);
                ("popular", (0..count).map(|_| self.popular()).collect())
            }
            66..76 => ("new", vec![self.own()]),
            76..86 => ("new beside popular", vec![self.popular(), self.own(), self.popular()]),
            86..90 => ("a source that is gone", vec![self.popular(), url(&self.nowhere)]),
            // Smaller than the model takes: known before it costs anything.
            90..93 => ("refused pictures", vec![data(&pictures::picture(self.number))]),
            93..97 => {
                self.count("sent twice");
                return self.last.clone();
            }
            _ => {
                self.count("no task");
                return self.bad();
            }
        };
        self.count(kind);
        self.task(kind, style, images)
    }

    fn count(&mut self, kind: &'static str) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    fn task(&mut self, kind: &str, (edit_type, prompt): (&str, &str), images: Vec<Value>) -> Vec<u8> {
        let id = format!("load-{:06}", self.number);
        self.tasks += 1;
        self.images += images.len() as u64;
        let task =
            json!({"v": 1, "task_id": &id, "edit_type": edit_type, "prompt": prompt, "images": images});
        self.last = serde_json::to_vec(&task).unwrap();
        if kind == "new" {
            self.new.push(id);
        }
        self.last.clone()
    }

    /// Some far more often than others.
    fn popular(&mut self) -> Value {
        let nth = self.dice.random_range(0..POPULAR).min(self.dice.random_range(0..POPULAR));
        self.popular[nth].clone()
    }

    /// A picture that no other task has.
    fn own(&self) -> Value {
        data(&picture(1000 + self.number))
    }

    /// Each another: the same bytes again would be the same dead letter.
    fn bad(&self) -> Vec<u8> {
        let number = self.number;
        match number % 3 {
            0 => format!("this is no JSON: {number}").into_bytes(),
            1 => json!({"v": 1, "task_id": format!("bad-{number}")}).to_string().into_bytes(),
            _ => json!({"v": 1, "edit_type": "remove_watermark", "prompt": number.to_string(), "images": []})
                .to_string()
                .into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_sends_the_same_and_every_kind_is_sent() {
        let [mut one, mut other] = [1, 1].map(|seed| Feed::new(seed, "http://nowhere/".to_owned()));
        for _ in 0..200 {
            assert_eq!(one.message(), other.message());
        }
        assert_eq!(one.kinds.len(), 7, "{:?}", one.kinds);
    }
}
