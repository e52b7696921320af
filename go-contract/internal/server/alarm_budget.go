package server

import (
	"regexp"
	"strconv"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// alarmBudget is a budget as training writes it: "0.1/week".
var alarmBudget = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)/(hour|day|week)$`)

// budgetSeconds are the seconds of each unit that a budget may be given in.
var budgetSeconds = map[string]float64{"hour": 3_600, "day": 86_400, "week": 604_800}

// trainedShare is the share of normal samples that may alarm as a model was trained for (rule M4), above 0 and below 1; 0 where the
// metadata do not say.
func trainedShare(metadata *anomalyv1.ModelMetadata) float64 {
	for _, share := range statedShares(metadata) {
		if share > 0 && share < 1 {
			return share
		}
	}
	return 0
}

// statedShares is what the metadata say, in the order of rule M4; they may be no shares at all.
func statedShares(metadata *anomalyv1.ModelMetadata) (shares []float64) {
	if budget := alarmBudget.FindStringSubmatch(metadata.GetTraining().GetHyperparameters()["alarm_budget"]); budget != nil {
		alarms, _ := strconv.ParseFloat(budget[1], 64) // fails where it is too large, and is an infinity then
		shares = append(shares, alarms*metadata.GetCadenceSeconds()/budgetSeconds[budget[2]])
	}
	if metadata.Contamination != nil {
		shares = append(shares, metadata.GetContamination())
	}
	if lstm := metadata.GetLstm(); lstm != nil {
		shares = append(shares, (100-lstm.GetThresholdPercentile())/100)
	}
	if dense := metadata.GetDense(); dense != nil {
		shares = append(shares, (100-dense.GetThresholdPercentile())/100)
	}
	return shares
}
