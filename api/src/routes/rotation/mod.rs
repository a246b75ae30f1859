//! Rotation: policies say how, plans what would happen, rotations what does.

mod policies;
mod rotations;
mod terms;
mod view;

pub use policies::PoliciesApi;
pub use rotations::RotationsApi;

/// All of them.
pub type Api = (PoliciesApi, RotationsApi);
