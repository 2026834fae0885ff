//! Where events may be sent to: schemes, ports and addresses, by the configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use reqwest::Url;
use url::Host;

use super::addresses::is_permitted;

/// Where this deployment sends to.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// Whether plain http will do.
    pub http_allowed: bool,
    /// Ports that may be connected to.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Blocks of addresses that would be refused else.
    pub allowed: Vec<IpNet>,
}

impl Targets {
    /// The URL of an endpoint as it is kept and called, or what is wrong with it. Notations that browsers take for an
    /// address (`http://0x7f.1`) come out as that address.
    pub fn url(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text.trim())
            .map_err(|error| format!("url cannot be read ({error}): give one such as https://example.com/webhooks"))?;
        match url.scheme() {
            "https" => {}
            "http" if self.http_allowed => {}
            "http" => return Err("url is not encrypted: give one with https (webhooks.http_allowed)".into()),
            other => return Err(format!("url has the scheme {other:?}: give one with https")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("url holds a name or a password: leave them out, what is sent is signed".into());
        }
        if url.fragment().is_some() {
            return Err("url has a part after '#', which is never sent: leave it out".into());
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.ports.iter().any(|ports| ports.contains(&port)) {
            return Err(format!("url has the port {port}, to which nothing is sent here (webhooks.ports)"));
        }
        match url.host() {
            None => Err("url has no host".into()),
            Some(Host::Domain(name)) if is_loopback_name(name) && !self.permits_loopback() => Err(refused()),
            Some(Host::Ipv4(address)) if !self.permits(address.into()) => Err(refused()),
            Some(Host::Ipv6(address)) if !self.permits(address.into()) => Err(refused()),
            Some(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_)) => Ok(url),
        }
    }

    /// Whether this address may be connected to.
    pub fn permits(&self, address: IpAddr) -> bool {
        is_permitted(address, &self.allowed)
    }

    fn permits_loopback(&self) -> bool {
        self.permits(Ipv4Addr::LOCALHOST.into()) || self.permits(Ipv6Addr::LOCALHOST.into())
    }
}

fn refused() -> String {
    "url leads to an address to which nothing is sent here (webhooks.addresses_allowed)".into()
}

/// Names that mean this machine, whoever is asked for them (RFC 6761).
fn is_loopback_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn usual() -> Targets {
        Targets { http_allowed: false, ports: vec![443..=443, 1024..=65_535], allowed: vec![] }
    }

    fn open() -> Targets {
        Targets { http_allowed: true, ports: vec![0..=65_535], allowed: vec![] }
    }

    #[test]
    fn an_ordinary_url_is_taken() {
        for text in ["https://example.com/hook?a=b", "https://example.com:8443/", "https://8.8.8.8/x", " https://a.de "]
        {
            usual().url(text).unwrap();
        }
        assert_eq!(usual().url("HTTPS://Example.COM").unwrap().as_str(), "https://example.com/");
    }

    #[test]
    fn what_cannot_be_called_or_is_better_left_out_is_refused() {
        let wrong = [
            ("example.com/hook", "cannot be read"),
            ("", "cannot be read"),
            ("https://", "cannot be read"),
            ("http://example.com/", "not encrypted"),
            ("ftp://example.com/", "the scheme"),
            ("file:///etc/passwd", "the scheme"),
            ("gopher://example.com/", "the scheme"),
            ("https://me:secret@example.com/", "a name or a password"),
            ("https://example.com/#part", "'#'"),
            ("https://example.com:22/", "the port 22"),
            ("https://example.com:25/", "the port 25"),
        ];
        for (text, reason) in wrong {
            let error = usual().url(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    /// Every notation in which an address can stand in a URL ends as that address.
    #[test]
    fn no_notation_of_a_special_address_is_taken() {
        let notations = [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://127.0.1/",
            "http://0/",
            "http://0.0.0.0/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://0x7F.0x0.0x0.0x1/",
            "http://2130706433/",
            "http://017700000001/",
            "http://0177.0.0.1/",
            "http://0177.0.0.01/",
            "http://127.0.0.1./",
            "http://127。0。0。1/",
            "http://①②⑦.⓪.⓪.①/",
            "http://１２７.0.0.1/",
            "http://%31%32%37.0.0.1/",
            "http://[::1]/",
            "http://[::]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://0xa9fea9fe/",
            "http://2852039166/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[2002:7f00:1::]/",
            "http://10.1/",
            "http://192.168.257/",
            "http://localhost/",
            "http://LOCALHOST/",
            "http://localhost./",
            "http://a.localhost/",
            "http://255.255.255.255/",
            "http://224.0.0.1/",
            "http://[ff02::1]/",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
        ];
        for text in notations {
            let error = open().url(text).expect_err(text);
            assert!(error.contains("to which nothing is sent"), "{text}: {error}");
        }
        // A text that no notation allows is no URL.
        for text in [
            "http://127.0.0.1.1.1/",
            "http://[fe80::1%25eth0]/",
            "http://0x100000000/",
            "http://[::1/",
            "http://256.1.1.1/",
        ] {
            assert!(open().url(text).unwrap_err().contains("cannot be read"), "{text}");
        }
    }

    #[test]
    fn the_configuration_may_allow_what_is_inside() {
        let inside = Targets { allowed: vec!["127.0.0.0/8".parse().unwrap()], ..open() };
        for text in ["http://127.0.0.1:9000/", "http://localhost:9000/", "http://0x7f.1/"] {
            inside.url(text).unwrap();
        }
        inside.url("http://10.0.0.1/").unwrap_err();
    }
}
