use super::{MicroBatch, line::Settings, member::Shared};
use crate::{InvalidSetting, record::Statistics, rollout::Everyone, signal::HttpClassifier};
use std::{any::type_name, fmt, sync::Arc, time::Duration};
use tower_layer::Layer;

/// Lets requests pass in small groups with a pause between. See the [module docs](super).
///
/// Settings come first, then clones and services: a setting that is made later gives this layer a line of its
/// own, and leaves the one that is in use as it is.
///
/// `C` reads the responses ([`Classify`](crate::signal::Classify)), `A` says which calls the layer works on
/// ([`Admit`](crate::rollout::Admit)).
#[must_use]
#[derive(Clone)]
pub struct MicroBatchLayer<C = HttpClassifier, A = Everyone> {
    shared: Arc<Shared>,
    options: Options<C, A>,
}

#[derive(Clone)]
pub(super) struct Options<C, A> {
    pub(super) classify: C,
    pub(super) admit: A,
}

impl MicroBatchLayer {
    /// Groups of at most `size`, all of a group at once, 500 ms between groups.
    ///
    /// # Errors
    /// If `size` is zero.
    pub fn new(size: usize) -> Result<Self, InvalidSetting> {
        let size = InvalidSetting::positive("size", size)?;
        let settings = Settings { size, parallel: size, pause: Duration::from_millis(500) };
        Ok(Self {
            shared: Arc::new(Shared::new(settings, Statistics::new())),
            options: Options { classify: HttpClassifier::new(), admit: Everyone },
        })
    }
}

impl<C, A> MicroBatchLayer<C, A> {
    /// The time between the end of a group and the start of the next. Default: 500 ms.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.shared_mut().line_mut().settings_mut().pause = pause;
        self
    }

    /// How many calls of a group are in flight at once, at most. 1 makes them follow one another. Default: the
    /// group's size.
    ///
    /// # Errors
    /// If `parallel` is zero.
    pub fn parallel(mut self, parallel: usize) -> Result<Self, InvalidSetting> {
        self.shared_mut().line_mut().settings_mut().parallel =
            InvalidSetting::positive("parallel", parallel)?;
        Ok(self)
    }

    /// The statistics to write to. Default: ones of its own.
    pub fn statistics(mut self, statistics: &Statistics) -> Self {
        self.shared_mut().statistics = statistics.clone();
        self
    }

    /// How responses are read, for the records. Default: [`HttpClassifier`].
    pub fn classify<C2>(self, classify: C2) -> MicroBatchLayer<C2, A> {
        MicroBatchLayer { shared: self.shared, options: Options { classify, admit: self.options.admit } }
    }

    /// Which calls the layer works on: a [`Rollout`](crate::Rollout), or one that is sticky
    /// [by key](crate::Rollout::by). Default: all. Calls outside go straight through.
    pub fn rollout<A2>(self, rollout: A2) -> MicroBatchLayer<C, A2> {
        let options = Options { classify: self.options.classify, admit: rollout };
        MicroBatchLayer { shared: self.shared, options }
    }

    /// Where the layer writes to.
    pub fn get_statistics(&self) -> Statistics {
        self.shared.statistics.clone()
    }

    fn shared_mut(&mut self) -> &mut Shared {
        if Arc::get_mut(&mut self.shared).is_none() {
            let fork = Shared::new(self.shared.settings(), self.shared.statistics.clone());
            self.shared = Arc::new(fork);
        }
        Arc::get_mut(&mut self.shared).expect("this layer alone has the line that was just made")
    }
}

impl<S, C: Clone, A: Clone> Layer<S> for MicroBatchLayer<C, A> {
    type Service = MicroBatch<S, C, A>;

    fn layer(&self, inner: S) -> Self::Service {
        self.shared.statistics.expect_batched();
        MicroBatch::new(inner, Arc::clone(&self.shared), self.options.clone())
    }
}

impl<C, A: fmt::Debug> fmt::Debug for MicroBatchLayer<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MicroBatchLayer")
            .field("shared", &self.shared)
            .field("options", &self.options)
            .finish()
    }
}

impl<C, A: fmt::Debug> fmt::Debug for Options<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("classify", &type_name::<C>()).field("admit", &self.admit).finish()
    }
}
