/// An inner service that can be cloned: every `Clone` type. The bound exists for what the compiler says where it is
/// missing.
///
/// A call that waits holds nothing of the inner service; it takes a clone, and readies that one when its time has come.
#[diagnostic::on_unimplemented(
    message = "the inner service `{Self}` is not `Clone`",
    label = "this layer clones its inner service for calls that have to wait",
    note = "put tower's `Buffer` below, whose handles are `Clone`: `.buffer(64)` in the `ServiceBuilder`, after this layer"
)]
pub trait CloneService: Clone {}

#[diagnostic::do_not_recommend]
impl<S: Clone> CloneService for S {}
