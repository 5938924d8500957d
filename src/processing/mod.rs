//! Phase two: what the files hold.
//!
//! Owns reading and hashing. Refuses to know where jobs come from and where outcomes go: both are
//! channels.
//!
//! Elimination in stages: files that share their size are sampled at three places (small ones are
//! read whole at once), and of those only files that share size *and* sample are read whole, side by side
//! if they come from memory.

pub mod pool;
pub mod read;
pub mod twins;
