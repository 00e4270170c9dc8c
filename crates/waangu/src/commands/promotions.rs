//! `waangu promote`: module versions on their way through the environments.

use http::Method;
use waangu_api::promotion::{Promote, PromotionRecord};

use super::admin;
use crate::cli::{Global, PromoteOptions};
use crate::failure::{Failure, Of as _};
use crate::output::{print, talk};

pub(crate) async fn promote(global: &Global, options: PromoteOptions) -> Result<(), Failure> {
    let client = admin(global)?;
    let record: PromotionRecord = if let Some(file) = &options.import {
        let text = std::fs::read_to_string(file).of(file.display())?;
        let told: PromotionRecord = serde_json::from_str(&text).of(file.display())?;
        client
            .send_json(Method::POST, "/promotions/import", &told, None)
            .await?
    } else if let (Some(wish), Some(to)) = (options.module, options.to) {
        let (module, version) = match wish.split_once('@') {
            Some((module, version)) => (module.to_owned(), Some(version.to_owned())),
            None => (wish, None),
        };
        let body = Promote {
            module,
            version,
            to,
        };
        client
            .send_json(Method::POST, "/promotions", &body, None)
            .await?
    } else {
        client.get("/promotions").await?
    };
    if let Some(file) = &options.export {
        let own = PromotionRecord {
            // What lies about here is no news to anybody else.
            waiting: Vec::new(),
            ..record.clone()
        };
        let text = serde_json::to_string_pretty(&own).of("record")?;
        std::fs::write(file, text + "\n").of(file.display())?;
        talk(&format!("wrote {}", file.display()));
    }
    show(global, &record)
}

fn show(global: &Global, record: &PromotionRecord) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for run in &record.runs {
        let how = format!("ran since {}", run.since);
        rows.push([&run.environment, &run.module, &run.version, &how].map(Clone::clone));
    }
    for promotion in &record.promotions {
        let how = format!("promoted by {} at {}", promotion.actor, promotion.at);
        let names = [
            &promotion.environment,
            &promotion.module,
            &promotion.version,
        ];
        rows.push([names[0], names[1], names[2], &how].map(Clone::clone));
    }
    for waiting in &record.waiting {
        let how = "waits for its promotion".to_owned();
        let here = &record.environment;
        rows.push([here, &waiting.module, &waiting.version, &how].map(Clone::clone));
    }
    let rows = rows.into_iter().map(|row| row.to_vec()).collect();
    let header = ["environment", "module", "version", ""];
    print(global.output, record, &header, rows)
}
