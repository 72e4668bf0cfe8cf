//! AWS: the error's code in `x-amzn-errortype`, with a status that may be 400.

/// Whether this is one of the codes that AWS's own SDKs take for throttling. A namespace before a `#` and a URI after
/// a `:` do not matter.
pub(super) fn is_throttling(error: &str) -> bool {
    let code = error.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default();
    matches!(
        code.trim(),
        "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "ProvisionedThroughputExceededException"
            | "TransactionInProgressException"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded"
            | "LimitExceededException"
            | "RequestThrottled"
            | "SlowDown"
            | "PriorRequestNotComplete"
            | "EC2ThrottledException"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_known_with_and_without_its_surroundings() {
        assert!(is_throttling("ThrottlingException"));
        assert!(is_throttling(
            "ThrottlingException:http://internal.amazon.com/coral/com.amazon.coral.availability/"
        ));
        assert!(is_throttling("com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"));
        assert!(!is_throttling("ValidationException"));
        assert!(!is_throttling(""));
    }
}
