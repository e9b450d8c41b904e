//! The promises, each for every reachable state.

use stateright::Property;

use super::protocol::{Editor, Protocol};
use super::world::{Image, World};

pub(super) const ONE_ALIVE: &str = "at most one call of an edit is alive, or it is counted";
pub(super) const NEVER_AGAIN: &str = "what is committed as paid, or in the cache, is never paid again";
pub(super) const COUNTED: &str = "no charge is more than the store has counted; with a list, none is";
pub(super) const ENDS: &str = "when nothing goes on by itself, every task has ended and was told";
pub(super) const SOUND: &str = "no wait outlives its edit, and the rows agree with each other";
pub(super) const HIT: &str = "no image is answered from a cache row that is not there";
pub(super) const OWN: &str = "every edit gets its own picture";
pub(super) const OWNER: &str = "only its owner ends a call";
pub(super) const UNWANTED_SUBMIT: &str = "no call is sent without a waiting image";
pub(super) const AT_MOST: &str =
    "no edit is charged more often than the policy allows, unless a person decides";

pub(super) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_ALIVE, |model: &Protocol, world: &World| {
            model.edits().all(|edit| world.alive(edit) <= 1 + world.counted(edit))
        }),
        Property::always(NEVER_AGAIN, |_, world: &World| !world.paid_again),
        Property::always(COUNTED, |model: &Protocol, world: &World| {
            let most = |edit| if model.editor == Editor::List { 0 } else { world.counted(edit) };
            model.edits().all(|edit| world.charges(edit) <= 1 + most(edit))
        }),
        Property::always(ENDS, |model: &Protocol, world: &World| {
            let over = |task: usize| {
                let task = &world.tasks[task];
                task.registered && task.ended && task.told && !task.due
            };
            model.tasks().all(over) || !model.rests(world)
        }),
        Property::always(SOUND, |_, world: &World| is_sound(world)),
        Property::always(HIT, |model: &Protocol, world: &World| {
            let answered =
                |image: Option<Image>| matches!(image, Some(Image::Hit | Image::Joined | Image::Paid));
            let mut images = model.tasks().flat_map(|task| world.tasks[task].images.into_iter().enumerate());
            images.all(|(edit, image)| !answered(image) || world.cache[edit].is_some())
        }),
        Property::always(OWN, |model: &Protocol, world: &World| {
            model.edits().all(|edit| world.cache[edit].is_none_or(|of| usize::from(of) == edit))
        }),
        Property::always(OWNER, |_, world: &World| !world.ended_by_a_stranger),
        Property::always(UNWANTED_SUBMIT, |_, world: &World| !world.sent_for_nobody),
        Property::always(AT_MOST, |model: &Protocol, world: &World| {
            let decided = usize::from(model.left.decisions - world.left.decisions);
            let most = usize::from(model.on_ambiguous.most_unanswered()) * (1 + decided);
            model.edits().all(|edit| world.charges(edit) <= most)
        }),
    ]
}

/// `UNSOUND` of `store_conformance/fixture.rs`, in its order.
fn is_sound(world: &World) -> bool {
    let tasks = world.tasks.iter().all(|task| {
        let waiting = task.images.map(|image| matches!(image, Some(Image::Waiting { .. })));
        let behind_what_is_over =
            task.waits.iter().zip(&world.calls).any(|(wait, call)| *wait && call.state.is_over());
        let processing = task.registered && !task.ended;
        let waits = task.waits.contains(&true);
        !behind_what_is_over && waits == processing && waiting == task.waits
    });
    tasks && world.calls.iter().all(|call| call.wake != call.state.is_over())
}
