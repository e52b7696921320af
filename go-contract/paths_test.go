package anomaly

// Folders of the repository that the tests read. A folder that is missing fails the tests.
const (
	referenceSets = "../models/reference" // a folder of frozen sets
	referenceSet  = referenceSets + "/v1"
	vectorsDir    = "../tests/vectors/v1"
)
