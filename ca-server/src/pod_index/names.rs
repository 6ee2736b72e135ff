//! Names as small numbers. Each is kept once, and only while somebody holds it: namespaces and nodes
//! come and go for as long as a process lives.

use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug)]
struct Slot {
    text: Arc<str>,
    holders: u32,
}

/// The names held now.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<Arc<str>, u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
}

impl Names {
    /// One holder more; answers the name's number, which is its own until the last holder lets go.
    pub(super) fn hold(&mut self, text: &str) -> u32 {
        if let Some(number) = self.find(text) {
            if let Some(slot) = self.slot(number) {
                slot.holders += 1;
            }
            return number;
        }
        let text: Arc<str> = text.into();
        let slot = Some(Slot {
            text: Arc::clone(&text),
            holders: 1,
        });
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.slots.push(None);
                // Bounded by the pods that hold names, which are fewer.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = usize::try_from(number).ok().and_then(|at| self.slots.get_mut(at)) {
            *place = slot;
        }
        self.numbers.insert(text, number);
        number
    }

    /// One holder less.
    pub(super) fn release(&mut self, number: u32) {
        let Some(slot) = self.slot(number) else { return };
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        let text = Arc::clone(&slot.text);
        self.numbers.remove(&text);
        if let Some(place) = usize::try_from(number).ok().and_then(|at| self.slots.get_mut(at)) {
            *place = None;
        }
        self.free.push(number);
    }

    /// The number of a name that is held.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The name behind a number.
    pub(super) fn text(&self, number: u32) -> Option<&str> {
        let slot = self.slots.get(usize::try_from(number).ok()?)?;
        slot.as_ref().map(|slot| &*slot.text)
    }

    /// How many names are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Memory held, in bytes, by the sizes of tables and texts.
    pub(super) fn bytes(&self) -> usize {
        let table = self.numbers.capacity() / 7 * 8 * (size_of::<(Arc<str>, u32)>() + 1);
        // An `Arc<str>` counts its holders in two words before the text.
        let texts: usize = self.numbers.keys().map(|text| text.len() + 16).sum();
        let slots = self.slots.capacity() * size_of::<Option<Slot>>();
        table + texts + slots + self.free.capacity() * size_of::<u32>()
    }

    fn slot(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }
}
