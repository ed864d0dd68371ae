//! The layout of FreeBSD's lists of connections and routes, as the C compiler sees it.
//!
//! `FREEBSD_CC` is a C compiler with FreeBSD 14's headers, for example
//! `zig cc -target x86_64-freebsd.14.0`; on FreeBSD itself `cc` will do.

use mobctl::connections::pcblist;
use mobctl::networks::routesock;
use std::process::Command;

const HEADERS: &str = "\
#include <sys/param.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/socketvar.h>
#include <sys/sockio.h>
#include <net/if.h>
#include <net/if_dl.h>
#include <net/route.h>
#include <netinet/in.h>
#include <netinet6/in6_var.h>
#include <netinet6/nd6.h>
#include <netinet/in_pcb.h>
#include <netinet/tcp.h>
#define TCPSTATES
#include <netinet/tcp_fsm.h>
#include <netinet/tcp_var.h>
#include <stddef.h>
";

fn layout() -> impl Iterator<Item = &'static (&'static str, usize)> {
    pcblist::LAYOUT.iter().chain(routesock::LAYOUT)
}

fn compiles(source: &str) -> Result<(), String> {
    let compiler = std::env::var("FREEBSD_CC").unwrap_or_else(|_| "cc".into());
    let mut words = compiler.split_whitespace();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("layout.c");
    std::fs::write(&file, source).unwrap();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .args(["-ferror-limit=0", "-c", "-o"])
        .args([folder.path().join("layout.o"), file])
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
#[cfg_attr(
    not(target_os = "freebsd"),
    ignore = "set FREEBSD_CC to a C compiler with FreeBSD's headers and run with --ignored"
)]
fn offsets_are_the_c_compilers() {
    let source = |by: usize| {
        let check = |(expression, value): &(&str, usize)| {
            format!("_Static_assert({expression} == {}, \"<{expression}>\");\n", value + by)
        };
        format!("{HEADERS}{}", layout().map(check).collect::<String>())
    };
    compiles(&source(0)).unwrap();
    // The same with every number wrong, so that a compiler which checks nothing is noticed.
    let errors = compiles(&source(1)).unwrap_err();
    for (expression, _) in layout() {
        assert!(errors.contains(&format!("<{expression}>")), "{expression} is not checked: {errors}");
    }
}
