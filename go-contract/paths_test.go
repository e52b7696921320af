package anomaly

// Folders of the repository that the tests read. A folder that is missing fails the tests.
const (
	referenceSet = "../models/reference/v1"
	vectorsDir   = "../tests/vectors/v1"
)
