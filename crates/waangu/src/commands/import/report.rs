//! What became of each line.

use indicatif::HumanDuration;
use serde::Serialize;
use waangu_api::types::PlacementView;
use waangu_api::{ClientError, Problem};
use waangu_kernel::Fault;

use crate::cli::Global;
use crate::failure::Failure;
use crate::output::{Format, line as say, print, table, talk};

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// The tenant was made.
    Created,
    /// It was there already, as the line says.
    Exists,
    /// It could be made.
    Possible,
    /// Neither.
    Failed,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mistake {
    pub(super) code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    pub(super) detail: String,
}

impl Mistake {
    pub(super) fn new(code: &str, field: Option<&str>, detail: String) -> Self {
        Self {
            code: code.to_owned(),
            field: field.map(str::to_owned),
            detail,
        }
    }
}

impl From<&Fault> for Mistake {
    fn from(fault: &Fault) -> Self {
        Self::new(fault.code(), fault.field_name(), fault.detail().to_owned())
    }
}

impl From<&Problem> for Mistake {
    fn from(problem: &Problem) -> Self {
        Self::new(
            &problem.code,
            problem.field.as_deref(),
            problem.detail.clone(),
        )
    }
}

impl From<ClientError> for Mistake {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(problem) => Self::from(problem.as_ref()),
            ClientError::Unreachable(why) => Self::new("unreachable", None, why),
        }
    }
}

/// One line's end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Outcome {
    pub(super) line: u64,
    pub(super) slug: String,
    pub(super) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) placement: Option<PlacementView>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) mistake: Option<Mistake>,
}

impl Outcome {
    pub(super) fn failed(line: u64, slug: String, mistake: Mistake) -> Self {
        Self {
            line,
            slug,
            status: Status::Failed,
            placement: None,
            mistake: Some(mistake),
        }
    }
}

/// All lines, and what they come to.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    dry_run: bool,
    created: usize,
    exists: usize,
    possible: usize,
    failed: usize,
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
    lines: Vec<Outcome>,
}

impl Report {
    /// Puts the lines in order and counts them.
    pub(super) fn new(dry_run: bool, mut lines: Vec<Outcome>, took: std::time::Duration) -> Self {
        lines.sort_by_key(|line| line.line);
        let count = |status| lines.iter().filter(|line| line.status == status).count();
        Self {
            dry_run,
            created: count(Status::Created),
            exists: count(Status::Exists),
            possible: count(Status::Possible),
            failed: count(Status::Failed),
            seconds: took.as_secs_f64(),
            warnings: Vec::new(),
            lines,
        }
    }

    pub(super) fn lines(&self) -> &[Outcome] {
        &self.lines
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// Prints it; a line that failed is a failure of the command.
    pub(super) fn print(&self, global: &Global) -> Result<(), Failure> {
        match global.output {
            Format::Json => print(global.output, self, &[], Vec::new())?,
            Format::Table => self.print_table()?,
        }
        for warning in &self.warnings {
            talk(&format!("warning: {warning}"));
        }
        if self.failed == 0 {
            return Ok(());
        }
        let all = self.lines.len();
        Err(Failure::failed(format!(
            "{} of {all} lines failed",
            self.failed
        )))
    }

    fn print_table(&self) -> Result<(), Failure> {
        let rows: Vec<Vec<String>> = self
            .lines
            .iter()
            .filter(|line| self.dry_run || line.status == Status::Failed)
            .map(row)
            .collect();
        if !rows.is_empty() {
            say(&table(&["line", "tenant", "", "what"], rows))?;
        }
        let took = HumanDuration(std::time::Duration::from_secs_f64(self.seconds));
        let done = if self.dry_run {
            format!("{} possible", self.possible)
        } else {
            format!("{} created", self.created)
        };
        say(&format!(
            "{done}, {} exist, {} failed; {took}",
            self.exists, self.failed
        ))
    }
}

fn row(line: &Outcome) -> Vec<String> {
    let what = match (&line.mistake, &line.placement) {
        (Some(mistake), _) => {
            let field = mistake.field.as_deref().unwrap_or("line");
            format!("{field}: {} [{}]", mistake.detail, mistake.code)
        }
        (None, Some(place)) => format!("{} in {}", place.tier, place.cell),
        (None, None) => String::new(),
    };
    let status = match line.status {
        Status::Created => "created",
        Status::Exists => "exists",
        Status::Possible => "possible",
        Status::Failed => "failed",
    };
    vec![
        line.line.to_string(),
        line.slug.clone(),
        status.to_owned(),
        what,
    ]
}
