"""What a user does with a trained model: embed, index, search, set a threshold, take the features away."""
