//! The file: lines of comma-separated values (RFC 4180) below a line of column names.
//!
//! Invariant: what is wrong with one line is told of that line and keeps no other from being read; only
//! column names that nobody can understand end it all.

use std::collections::HashMap;
use std::path::Path;

use csv::{ByteRecord, Position, ReaderBuilder, Trim};
use waangu_api::types::CreateTenant;
use waangu_kernel::{CountryCode, Fault, Slug};

use super::report::{Mistake, Outcome};
use crate::failure::{Failure, Of as _};

/// The columns, as in `POST /tenants`.
const COLUMNS: [&str; 8] = [
    "slug", "name", "country", "parent", "profile", "tier", "modules", "plan",
];

/// Columns that must be there.
const NEEDED: [&str; 2] = ["slug", "country"];

/// What the file says: wishes, and lines that are none.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) wishes: Vec<Wish>,
    pub(super) mistakes: Vec<Outcome>,
}

/// One tenant to be made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wish {
    /// The line it stands in, from 1.
    pub(super) line: u64,
    pub(super) body: CreateTenant,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Wishes, Failure> {
    let bytes = std::fs::read(path).of(path.display())?;
    parse(&bytes).map_err(|why| Failure::usage(format!("{}: {why}", path.display())))
}

fn parse(bytes: &[u8]) -> Result<Wishes, String> {
    // Spreadsheets put a byte order mark before UTF-8.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = ReaderBuilder::new()
        .flexible(true)
        .trim(Trim::All)
        .from_reader(bytes);
    let columns = columns(reader.byte_headers().map_err(|error| error.to_string())?)?;
    let mut found = Wishes::default();
    let mut lines_by_slug = HashMap::new();
    let mut record = ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| error.to_string())?
    {
        let line = record.position().map_or(0, |at| line_of(bytes, at));
        let slug = slug_of(&columns, &record);
        match wish(&columns, &record) {
            Ok(body) => match lines_by_slug.insert(slug.clone(), line) {
                None => found.wishes.push(Wish { line, body }),
                Some(first) => {
                    lines_by_slug.insert(slug.clone(), first);
                    let why = format!("line {first} has this slug, too");
                    let mistake = Mistake::new("slug-taken", Some("slug"), why);
                    found.mistakes.push(Outcome::failed(line, slug, mistake));
                }
            },
            Err(mistake) => found.mistakes.push(Outcome::failed(line, slug, mistake)),
        }
    }
    Ok(found)
}

/// The line that a record begins in. The reader tells where it began to look for it, which is before
/// empty lines, and between the two halves of a line break.
fn line_of(bytes: &[u8], at: &Position) -> u64 {
    let from = usize::try_from(at.byte()).unwrap_or(usize::MAX);
    let skipped = bytes
        .iter()
        .skip(from)
        .take_while(|byte| b"\r\n".contains(byte));
    let breaks = skipped.filter(|byte| **byte == b'\n').count();
    at.line().saturating_add(u64::try_from(breaks).unwrap_or(0))
}

/// The column names, each known and standing once.
fn columns(header: &ByteRecord) -> Result<Vec<&'static str>, String> {
    let mut columns: Vec<&'static str> = Vec::new();
    for name in header {
        let name = String::from_utf8_lossy(name);
        let known = COLUMNS.into_iter().find(|column| *column == name);
        let Some(known) = known else {
            return Err(format!(
                "there is no column `{}`; there are {}",
                name.escape_debug(),
                COLUMNS.join(", ")
            ));
        };
        if columns.contains(&known) {
            return Err(format!("column `{known}` stands twice"));
        }
        columns.push(known);
    }
    match NEEDED.into_iter().find(|needed| !columns.contains(needed)) {
        Some(missing) => Err(format!("there is no column `{missing}`")),
        None => Ok(columns),
    }
}

/// What names a line in the report, however wrong the rest of it is.
fn slug_of(columns: &[&str], record: &ByteRecord) -> String {
    let at = columns.iter().position(|column| *column == "slug");
    let slug = at.and_then(|at| record.get(at)).unwrap_or_default();
    waangu_kernel::fault::excerpt(&String::from_utf8_lossy(slug))
}

fn wish(columns: &[&str], record: &ByteRecord) -> Result<CreateTenant, Mistake> {
    let malformed = |why: String| Mistake::new("malformed-line", None, why);
    if record.len() != columns.len() {
        let (has, needs) = (record.len(), columns.len());
        return Err(malformed(format!(
            "it has {has} values for {needs} columns"
        )));
    }
    let mut body = CreateTenant::default();
    for (column, value) in columns.iter().zip(record) {
        let value = std::str::from_utf8(value)
            .map_err(|_invalid| malformed(format!("`{column}` is not UTF-8")))?;
        if value.is_empty() {
            continue;
        }
        let text = value.to_owned();
        match *column {
            "slug" => body.slug = text,
            "name" => body.name = text,
            "country" => body.country = text,
            "parent" => body.parent = Some(text),
            "profile" => body.profile = Some(text),
            "tier" => body.tier = Some(text),
            "plan" => body.plan = Some(text),
            _ => body.modules = Some(value.split(';').map(|id| id.trim().to_owned()).collect()),
        }
    }
    // What the platform would refuse for the same reason, without asking it.
    let slug: Result<Slug, Fault> = body.slug.parse();
    slug.map_err(|fault| Mistake::from(&fault))?;
    let country: Result<CountryCode, Fault> = body.country.parse();
    country.map_err(|fault| Mistake::from(&fault))?;
    if body.name.is_empty() {
        body.name.clone_from(&body.slug);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line, code and field.
    type Told = (u64, String, String);

    fn told(text: &[u8]) -> (Vec<(u64, String)>, Vec<Told>) {
        let found = parse(text).unwrap();
        let wishes = found
            .wishes
            .into_iter()
            .map(|wish| (wish.line, wish.body.slug));
        let mistakes = found.mistakes.into_iter().map(|line| {
            let mistake = line.mistake.unwrap();
            (line.line, mistake.code, mistake.field.unwrap_or_default())
        });
        (wishes.collect(), mistakes.collect())
    }

    /// One bad line among ten thousand must cost one line, and be found by its number.
    #[test]
    fn bad_lines_are_told_and_keep_nobody_out() {
        let text = b"\xef\xbb\xbfslug, country ,name\r\n\
            a,SN,Acme\n\
            Bad Slug,SN,x\n\
            b,XX,x\n\
            \n\
            c,SN\n\
            d,SN,\xff\n\
            \"e\",\"SN\",\"two\nlines, one \"\"name\"\"\"\n\
            a,SN,again\n\
            f,,x\n\
            ,SN,x\n\
            admin,SN,x\n\
            g, FR ,\n";
        let (wishes, mistakes) = told(text);
        let slugs: Vec<&str> = wishes.iter().map(|(_, slug)| slug.as_str()).collect();
        assert_eq!(slugs, ["a", "e", "g"]);
        assert_eq!(wishes[0].0, 2);
        let wanted = [
            (3, "slug-invalid", "slug"),
            (4, "country-unknown", "country"),
            (6, "malformed-line", ""),
            (7, "malformed-line", ""),
            (10, "slug-taken", "slug"),
            (11, "country-unknown", "country"),
            (12, "slug-invalid", "slug"),
            (13, "slug-reserved", "slug"),
        ];
        let wanted = wanted.map(|(line, code, field)| (line, code.to_owned(), field.to_owned()));
        assert_eq!(mistakes, wanted);
    }

    /// A misspelt column that is ignored would place ten thousand clients by default.
    #[test]
    fn columns_are_known_and_stand_once() {
        for (header, why) in [
            ("slug,country,teir", "teir"),
            ("slug,country,slug", "twice"),
            ("slug,name", "`country`"),
            ("country", "`slug`"),
            ("", "`slug`"),
            ("slug;country", "slug;country"),
        ] {
            let refused = parse(header.as_bytes()).unwrap_err();
            assert!(refused.contains(why), "{header}: {refused}");
        }
        let found = parse(b"country,plan,modules,slug\nSN,gold,a; b,x\n").unwrap();
        let body = &found.wishes[0].body;
        assert_eq!(body.plan.as_deref(), Some("gold"));
        assert_eq!(body.modules.as_ref().unwrap(), &["a", "b"]);
        assert_eq!((body.name.as_str(), body.tier.as_deref()), ("x", None));
    }
}
