use data_encoding::BASE32HEX_NOPAD;

use crate::Error;

/// A new id that is never used again: 80 random bits.
pub(in crate::jetstream) fn fresh() -> Result<String, Error> {
    let mut bytes = [0_u8; 10];
    fill(&mut bytes)?;
    Ok(BASE32HEX_NOPAD.encode(&bytes).to_ascii_lowercase())
}

fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    #[cfg(feature = "testing")]
    if crate::jetstream::stored::seeded::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes)
        .map_err(|error| Error::unavailable(format!("no random numbers to be had: {error}")))
}
