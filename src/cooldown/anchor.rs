//! How a call holds its gate.

use super::gate::Gate;
use std::{fmt, ops::Deref, sync::Arc};

/// What a service handle and its calls hold. The calls of one handle count their references apart from those of
/// others, so that handles on several threads do not take the count from one another's processor.
#[derive(Debug)]
pub(super) struct Anchored {
    gate: Arc<Gate>,
    /// Made for the second call: a handle that is cloned for each call has no use for it.
    anchor: Option<Arc<Anchor>>,
    used: bool,
}

/// On cache lines of its own.
#[repr(align(64))]
pub(super) struct Anchor {
    gate: Arc<Gate>,
}

/// A reference to a gate.
#[derive(Clone)]
pub(super) enum GateRef {
    Direct(Arc<Gate>),
    Anchored(Arc<Anchor>),
}

impl Anchored {
    pub(super) const fn new(gate: Arc<Gate>) -> Self {
        Self { gate, anchor: None, used: false }
    }

    pub(super) const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    #[inline]
    pub(super) fn reference(&mut self) -> GateRef {
        match &self.anchor {
            Some(anchor) => GateRef::Anchored(Arc::clone(anchor)),
            None => self.first_reference(),
        }
    }

    #[cold]
    fn first_reference(&mut self) -> GateRef {
        if self.used {
            self.anchor = Some(Arc::new(Anchor { gate: Arc::clone(&self.gate) }));
        }
        self.used = true;
        GateRef::Direct(Arc::clone(&self.gate))
    }
}

impl GateRef {
    /// For keeping it apart from the handle.
    pub(super) fn to_gate(&self) -> Arc<Gate> {
        match self {
            Self::Direct(gate) => Arc::clone(gate),
            Self::Anchored(anchor) => Arc::clone(&anchor.gate),
        }
    }
}

impl GateRef {
    /// Something happened at the gate that its fleet may have to hear of.
    #[cfg(feature = "redis")]
    #[inline]
    pub(super) fn attend(&self) {
        if let Some(fleet) = self.fleet() {
            fleet.attend(|| {
                let gate: Arc<dyn crate::fleet::Front> = self.to_gate();
                Arc::downgrade(&gate)
            });
        }
    }

    #[cfg(not(feature = "redis"))]
    #[inline(always)]
    #[allow(clippy::unused_self, reason = "there are no fleets")]
    pub(super) const fn attend(&self) {}
}

impl Deref for GateRef {
    type Target = Gate;

    #[inline]
    fn deref(&self) -> &Gate {
        match self {
            Self::Direct(gate) => gate,
            Self::Anchored(anchor) => &anchor.gate,
        }
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gate.fmt(f)
    }
}

impl fmt::Debug for GateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}
