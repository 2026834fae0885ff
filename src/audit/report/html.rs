//! A report as one file for a browser and for paper: no script, nothing from elsewhere. Everything that it shows is
//! escaped, and a policy in its head forbids what it does not have.

use super::Report;
use super::tables::{Section, head, proofs, sections};

const STYLE: &str = include_str!("report.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The report as HTML.
pub fn html(report: &Report) -> String {
    let mut page = Page(String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"));
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"").text(POLICY).raw("\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width\">\n");
    page.raw("<meta name=\"referrer\" content=\"no-referrer\">\n<title>Audit report: ");
    page.text(&report.organization.name).raw("</title>\n<style>\n").raw(STYLE).raw("</style>\n</head>\n<body>\n");
    page.element("h1", "Audit report");
    page.pairs(&head(report));
    for section in sections(report) {
        page.section(&section);
    }
    page.raw("<section>\n").element("h2", "Proofs").pairs(&proofs(report));
    page.element("p", "To check (the last command needs no service and runs on any machine):");
    page.raw("<pre>").text(&report.proofs.commands.join("\n")).raw("</pre>\n</section>\n</body>\n</html>\n");
    page.0
}

/// A page on its way. Only [`Page::raw`] does not escape, and it takes what is written in this program.
struct Page(String);

impl Page {
    fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' => self.0.push('\n'),
                c if c.is_control() => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    fn element(&mut self, name: &'static str, text: &str) -> &mut Self {
        self.raw("<").raw(name).raw(">").text(text).raw("</").raw(name).raw(">\n")
    }

    fn pairs(&mut self, pairs: &[(&'static str, String)]) -> &mut Self {
        self.raw("<dl>\n");
        for (name, value) in pairs {
            self.element("dt", name).element("dd", value);
        }
        self.raw("</dl>\n")
    }

    fn section(&mut self, section: &Section) {
        self.raw("<section>\n").element("h2", section.title);
        if let Some(note) = &section.note {
            self.element("p", note);
        }
        if section.rows.is_empty() {
            self.element("p", section.empty).raw("</section>\n");
            return;
        }
        self.raw("<table>\n<thead><tr>");
        for title in &section.columns {
            self.element("th", title);
        }
        self.raw("</tr></thead>\n<tbody>\n");
        for row in &section.rows {
            self.raw("<tr>");
            for cell in row {
                self.element("td", cell);
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody>\n</table>\n");
        if let Some(more) = &section.more {
            self.element("p", &format!("… {more}"));
        }
        self.raw("</section>\n");
    }
}
