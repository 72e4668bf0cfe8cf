//! A guide, page by page. All of its code runs as tests.
//!
//! 1. [Your first stack](first_stack)
//! 2. [Choosing a policy](policies)
//! 3. [The order of layers](order)
//! 4. [LLM providers](llm)
//! 5. [gRPC](grpc)
//! 6. [Inbound, in axum](axum)
//! 7. [Testing your stack, in virtual time](testing)
//! 8. [Production](production)
//! 9. [Migrating](migrating): from a hand-written backoff, from tower's `RateLimit`, from the first version's calls

#[doc = include_str!("../docs/guide/axum.md")]
pub mod axum {}
#[doc = include_str!("../docs/guide/first_stack.md")]
pub mod first_stack {}
#[doc = include_str!("../docs/guide/grpc.md")]
pub mod grpc {}
#[doc = include_str!("../docs/guide/llm.md")]
pub mod llm {}
#[doc = include_str!("../docs/guide/migrating.md")]
pub mod migrating {}
#[doc = include_str!("../docs/guide/order.md")]
pub mod order {}
#[doc = include_str!("../docs/guide/policies.md")]
pub mod policies {}
#[doc = include_str!("../docs/guide/production.md")]
pub mod production {}
#[doc = include_str!("../docs/guide/testing.md")]
pub mod testing {}
