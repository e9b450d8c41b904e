//! One TLS provider for every client in the process. reqwest and rustls are built without a default, so
//! this must have run before the first client is built.

/// Makes ring the process's TLS provider. Cheap, and harmless when called again.
pub fn init() {
    // An error means that a provider is installed already: ours, or one chosen by a test or an embedder.
    rustls::crypto::ring::default_provider().install_default().ok();
}
