"""A study: networks x tasks x folds trained, tested, explained, and the explanations tested (``audio-lrp study``).

A study is a folder. Whatever appears in it under its name is complete; a run that was interrupted leaves hidden or
``.part`` files at most. Processes and machines that share the folder share the work, by the job queue of
`audio_lrp.jobs`.

::

    study-NAME/
        study.json                  what the study is made of: corpus and what is left out of it, budget, recipes,
                                    LRP composite, number of folds
        queue.log                   the job queue: who works on which cell; with --storage in a database instead. Which
                                    cells are finished their results tell, so it may be removed while nobody works
        workers/                    what the workers printed beside their trainings
        cells/NETWORK-TASK-foldK/   one training and all that was measured on it
            fit.yaml                the training's configuration: audio-lrp fit --config fit.yaml
            training/TIME/          config.yaml and metrics.csv; another TIME for each time it was resumed
            checkpoints/best.ckpt   chosen by the validation speakers; last.ckpt beside it during the training
            cell.log                what the training printed
            predictions.csv         every test clip: file, label, prediction, probability of each class
            perturbation.csv        and .npz: what removal does, per clip (see `measurements`)
            frequency_scaling.csv   gender, spectrograms: accuracy after each manipulation
            bands.csv               relevance by band of frequencies and class
            scores.csv              scores of the explanations, each with a bootstrap interval over the test speakers;
                                    sensitivity.csv: that of the score for which clips are explained many times
            randomization.csv       rank correlation with the maps of the network while its layers are randomised
            result.json             written last: the cell is finished
            failure.json            in its place: why it failed; the next command tries again
        tables/NAME.csv, NAME.json  all finished cells together, one row per observation:
            accuracy                network, task, fold, clips, test_accuracy, validation_accuracy, steps
            confusion               network, task, fold, label, prediction, clips
            perturbation            network, task, fold, order, fraction, accuracy, probability, logit (and their
                                    spread over random orders, _std); orders: morf and lerf by LRP, random, amplitude,
                                    and the names of other attribution methods: morf by these
            comparison              network, task, quantity, competitor, fraction, mean, low, high: how much less is
                                    left after MoRF than after the competitor, with a bootstrap interval
            frequency_scaling       network, task, fold, manipulation, speakers, clips, accuracy, and low and high: its
                                    bootstrap interval over speakers
            bands                   network, task, fold, class, low_hertz, high_hertz, relevance, share, clips
            scores                  network, task, fold, score, mean, low, high
            randomization           network, task, fold, layer, mean, std: of the rank correlation, over clips
            summary                 quantity, network, task, mean, std, folds, reported_mean, reported_std: percent,
                                    mean and standard deviation over folds; what the paper reports is not verified
        figures/NAME.png            accuracy, removal, frequency_scaling, bands-NETWORK-TASK, scores, randomization

``audio-lrp scaling`` and ``audio-lrp faithfulness`` measure the same on a single checkpoint and any corpus. Their
folders hold the same tables and figures, without folds, and ``about.json``: what was measured, on what.

Accuracies and shares are fractions of 1, but for the summary, whose values are in percent as the paper has them.
"""
