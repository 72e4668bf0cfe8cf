#[cfg(feature = "keyed")]
use crate::cooldown::keyed::KeyedHandle;
use crate::{Handle, Rollout, record::Statistics};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What is exported under one name: a book, a gate, or both, of one upstream of one stack.
///
/// ```
/// use tower_cooldown::{AdaptiveCooldownLayer, export::{Source, Sources}, record::Statistics};
///
/// let statistics = Statistics::new();
/// let layer = AdaptiveCooldownLayer::new().name("gemini").statistics(&statistics);
///
/// let sources = Sources::new();
/// sources.add(Source::new("tagging", "gemini").statistics(&statistics).gate(&layer.handle()));
/// ```
///
/// Give each book once: what two sources share would be counted twice.
#[must_use]
#[derive(Clone)]
pub struct Source {
    pub(super) layer: Arc<str>,
    pub(super) provider: Arc<str>,
    pub(super) statistics: Option<Statistics>,
    pub(super) gate: Option<Gate>,
    pub(super) rollout: Option<Rollout>,
    pub(super) gen_ai: Option<Arc<GenAi>>,
}

#[derive(Clone)]
pub(super) enum Gate {
    One(Handle),
    #[cfg(feature = "keyed")]
    Keyed(KeyedHandle),
}

/// What the conventions for generative AI want to know of a source.
#[derive(Debug)]
pub(super) struct GenAi {
    pub(super) operation: Box<str>,
    pub(super) provider: Box<str>,
    pub(super) model: Option<Box<str>>,
}

/// Longer names are cut: they come back with each scrape.
const MAX_NAME: usize = 64;

fn name(name: &str) -> Arc<str> {
    let end = name.char_indices().nth(MAX_NAME).map_or(name.len(), |(end, _)| end);
    Arc::from(&name[..end])
}

impl Source {
    /// Of this stack (the label `layer`) and this upstream (the label `provider`). Names are cut after 64 characters.
    pub fn new(layer: &str, provider: &str) -> Self {
        Self {
            layer: name(layer),
            provider: name(provider),
            statistics: None,
            gate: None,
            rollout: None,
            gen_ai: None,
        }
    }

    /// Its book.
    pub fn statistics(mut self, statistics: &Statistics) -> Self {
        self.statistics = Some(statistics.clone());
        self
    }

    /// Its gate.
    pub fn gate(mut self, handle: &Handle) -> Self {
        self.gate = Some(Gate::One(handle.clone()));
        self
    }

    /// The gates of all keys, added up: keys are hashed, and have no names to export. For one with a name make a
    /// source of its own, with the [handle of its key](KeyedHandle::get). Each export looks at every gate: with
    /// 100,000 of them that takes some 20 ms.
    #[cfg(feature = "keyed")]
    #[cfg_attr(docsrs, doc(cfg(feature = "keyed")))]
    pub fn keyed(mut self, handle: &KeyedHandle) -> Self {
        self.gate = Some(Gate::Keyed(handle.clone()));
        self
    }

    /// Its rollout.
    pub fn rollout(mut self, rollout: &Rollout) -> Self {
        self.rollout = Some(rollout.clone());
        self
    }

    /// Also exports `gen_ai.client.token.usage` and `gen_ai.client.operation.duration`, from the tokens that callers
    /// [report](crate::record::Usage): `operation` is `chat`, `embeddings` or another of the conventions' names,
    /// `provider` is `openai`, `anthropic`, `gcp.gemini`, and so on.
    pub fn gen_ai(mut self, operation: &str, provider: &str, model: Option<&str>) -> Self {
        let short = |text: &str| Box::from(&*name(text));
        self.gen_ai = Some(Arc::new(GenAi {
            operation: short(operation),
            provider: short(provider),
            model: model.map(short),
        }));
        self
    }

    fn is_of(&self, layer: &str, provider: &str) -> bool {
        *self.layer == *layer && *self.provider == *provider
    }
}

/// All that is exported. Its clones are one list, which may change while the program runs.
#[derive(Clone, Default)]
pub struct Sources {
    list: Arc<Mutex<Vec<Source>>>,
}

impl Sources {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source, in place of one with the same names if there is one.
    pub fn add(&self, source: Source) {
        let mut list = self.lock();
        match list.iter_mut().find(|old| old.is_of(&source.layer, &source.provider)) {
            Some(old) => *old = source,
            None => list.push(source),
        }
    }

    /// Takes a source off the list. Whether there was one.
    pub fn remove(&self, layer: &str, provider: &str) -> bool {
        let (layer, provider) = (name(layer), name(provider));
        let mut list = self.lock();
        let before = list.len();
        list.retain(|source| !source.is_of(&layer, &provider));
        list.len() < before
    }

    /// Writes all sources as `tracing` events: the rates and the gates at `info`, the waits at `debug`, each with the
    /// names of its source.
    pub fn log(&self) {
        for source in self.list() {
            let (layer, provider) = (&*source.layer, &*source.provider);
            let _in = tracing::info_span!("tower_cooldown", layer, provider).entered();
            if let Some(statistics) = &source.statistics {
                statistics.snapshot().log();
            }
            if let Some(gate) = source.gate.map(|gate| gate.read()) {
                tracing::info!(
                    layer,
                    provider,
                    gates = gate.gates,
                    closed = gate.closed,
                    closed_for_ms = gate.remaining.as_millis() as u64,
                    waiting = gate.waiting,
                    in_flight = gate.in_flight,
                    rate = gate.rate,
                    rollout = source.rollout.map(|rollout| rollout.get()),
                    "gate"
                );
            }
        }
    }

    pub(super) fn list(&self) -> Vec<Source> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Source>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("layer", &self.layer)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter()).finish()
    }
}
