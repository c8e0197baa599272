//! TLS towards servers, from the plan. One configuration for the doctor and the shards, so that what the one
//! reports the others do. Invariant: no way to switch verification off.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::plan::TlsPlan;

/// Trust and identity as planned.
///
/// # Errors
/// A file that cannot be read or does not hold what it should, with its path.
pub fn client_config(plan: &TlsPlan) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(plan)?);
    let Some((cert_file, key_file)) = &plan.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let certs = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: {error}", cert_file.display()))?;
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| format!("{}: {error}", key_file.display()))?;
    builder.with_client_auth_cert(certs, key).map_err(|error| error.to_string())
}

fn roots(plan: &TlsPlan) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(file) = &plan.ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let certs = CertificateDer::pem_file_iter(file)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    for cert in certs {
        let cert = cert.map_err(|error| format!("{}: {error}", file.display()))?;
        roots.add(cert).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}
