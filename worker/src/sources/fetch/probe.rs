//! Checks that a link leads to content, without downloading it.

use reqwest::header::RANGE;
use tokio::time::Instant;
use url::Url;

use super::{FetchError, Fetcher, Next, Purpose, failed, host_of, read_status, redirected};

impl Fetcher {
    /// Whether `url` leads to content. Requests its first byte: addresses that are signed for GET refuse
    /// HEAD.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn probe(&self, url: &str) -> Result<(), FetchError> {
        let url = Url::parse(url).map_err(|error| FetchError::BadUrl(error.to_string()))?;
        let deadline = Instant::now() + self.limits.deadline;
        let answer = tokio::time::timeout_at(deadline, self.follow_to_status(&url)).await;
        answer.unwrap_or_else(|_| Err(self.too_slow(&url)))
    }

    async fn follow_to_status(&self, url: &Url) -> Result<(), FetchError> {
        let mut url = url.clone();
        for _ in 0..=self.limits.max_redirects {
            self.check(&url, Purpose::Source)?;
            let sent = self.client.get(url.clone()).header(RANGE, "bytes=0-0").send().await;
            let response = sent.map_err(|error| failed(&url, &error))?;
            // The requested part.
            if response.status().as_u16() == 206 {
                return Ok(());
            }
            match read_status(&url, response.status())? {
                Next::Body => return Ok(()),
                Next::Redirect => url = redirected(&url, &response)?,
            }
        }
        Err(FetchError::TooManyRedirects { host: host_of(&url), limit: self.limits.max_redirects })
    }
}
